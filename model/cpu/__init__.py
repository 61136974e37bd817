"""Faster paths of the equations in `model/blocks/`, and the dispatcher that chooses between them.

Most paths are for float32 on CPU: `fused_attention.py` and `fused_layer.py` use compiled loops, `feed_forward.py` uses
oneDNN's linear maps, and `dropout.py` draws cheap random bits. `few_keys.py` and `torch_attention.py` work on every
device.

May import `kernels.layers` and torch, but neither `model.blocks` nor a system, which import this package.

Open `dispatch.py` first: `choose` names the path that runs, and the reason.
"""

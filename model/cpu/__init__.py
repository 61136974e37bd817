"""Faster paths of equations in `model/blocks/`, and the one dispatcher that chooses between them.

Most are for CPU, in float32: compiled loops, oneDNN's linear maps, dropout by cheap random bits. `few_keys.py` and
`torch_attention.py` serve every device.

May import: `kernels.layers` and torch. Neither `model.blocks` nor a system, which import this package.

Begin with `dispatch.py`: `choose` says which path runs, and why.
"""

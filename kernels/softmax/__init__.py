"""The fused softmax loss for GPUs: cross entropy over candidates without their logits in memory.

May import the files of kernels/. It has no CPU path: on CPU the losses in `model/blocks/losses.py` compute the same in
torch's operators. Files, and what to open them for:

    sampled_softmax.py  open first: the loss as an autograd function, and what it needs from its caller
    tiles.py            sizes of tiles, and into how many programs the work is split
    triton_kernels.py   the kernels, in Triton
"""

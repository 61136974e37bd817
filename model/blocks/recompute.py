"""Keeps only the inputs of a computation, and computes it again in the backward pass: `torch.utils.checkpoint`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint


def recomputed(compute: Callable[..., Tensor], *args: Any, draws: bool = True) -> Tensor:
    """Return `compute(*args)`, of which autograd keeps nothing but what `compute` and the arguments refer to.

    PyTorch restores the random numbers of those devices only that it finds among the tensors in `args`. It looks into
    lists, tuples and dicts, but not into dataclasses, and not into what `compute` refers to. Without a tensor of the
    device there, the second computation would draw other dropout and noise than the first, and gradients would be
    wrong without an error. So one is required.

    Args:
        compute: the computation. Its result is on the device on which it draws random numbers.
        *args: its arguments, one of them a tensor on the device of the result.
        draws: whether the computation draws random numbers.
    """
    result: Tensor = checkpoint(compute, *args, use_reentrant=False, preserve_rng_state=draws)
    devices = {leaf.device for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
    assert result.device in devices, f"no argument is a tensor on {result.device}, so its random numbers are not kept"
    return result

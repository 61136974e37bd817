"""A mixture of experts: the weighted mean of several vectors of an item, with weights that a gate computes."""

from __future__ import annotations

from torch import Tensor


def mixture(experts: Tensor, logits: Tensor) -> Tensor:
    """Return sum_g softmax(logits)_g * expert_g, [..., d].

    Args:
        experts: [..., G * d], the outputs of G experts, one after the other.
        logits: [..., G], the gate's logits.
    """
    gates = logits.softmax(dim=-1).to(experts.dtype)
    return (gates.unsqueeze(-2) @ experts.unflatten(-1, (gates.shape[-1], -1))).squeeze(-2)

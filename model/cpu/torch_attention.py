"""Attention of a tower by torch's fused kernel.

Shapes: S sequences, h heads, Q states, L keys, w width of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from model.cpu.dispatch import Part, Work, work_on


def tower_attention_work(
    queries_ShQw: Tensor,
    keys_values: tuple[Tensor, Tensor],  # noqa: ARG001 -- every path takes the same arguments
    visible_SQL: Tensor | None,  # noqa: ARG001
    rate: float,
) -> Work:
    """Return what the choice between the paths of `sequence_encoder.attention` depends on."""
    return work_on(queries_ShQw, Part.TOWER_ATTENTION, rate=rate)


def kernel_attention(
    queries_ShQw: Tensor, keys_values: tuple[Tensor, Tensor], visible_SQL: Tensor | None, rate: float
) -> Tensor:
    """Compute the result of `sequence_encoder.attention.plain`, which documents the arguments."""
    keys, values = keys_values
    visible = None if visible_SQL is None else visible_SQL[:, None]
    return F.scaled_dot_product_attention(
        queries_ShQw, keys, values, attn_mask=visible, dropout_p=rate, is_causal=visible is None
    )

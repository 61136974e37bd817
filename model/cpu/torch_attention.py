"""Attention of a tower, and of interest centres, by torch's fused kernel.

On a GPU in float32, the kernel needs heads whose width is a multiple of 4 (in bfloat16, of 8); for other widths torch
falls back to plain operators.

Shapes: S sequences, h heads, Q states, k centres, L keys, w width of a head, d = h w.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from model.cpu.dispatch import Part, Work, work_on
from model.cpu.layer_parts import LayerParts


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


def kernel_center_attention(
    layer: LayerParts, centers_SQkd: Tensor, keys_values: tuple[Tensor, Tensor], visible_SQL: Tensor, rate: float
) -> Tensor:
    """Compute the result of `interest_centers.center_attention.plain`, which documents the arguments."""
    keys, values = keys_values
    num_sequences, num_heads, num_keys, width = keys.shape
    num_states, num_centers = visible_SQL.shape[1], centers_SQkd.shape[2]
    shape, num_queries = (num_sequences, num_states, num_centers), num_states * num_centers
    queries = layer.query(centers_SQkd).expand(*shape, -1).reshape(num_sequences, num_queries, num_heads, width)
    visible_S1NL = visible_SQL[:, :, None].expand(*shape, num_keys).reshape(num_sequences, 1, num_queries, num_keys)
    queries_ShNw = queries.transpose(1, 2)
    mixed_ShNw = F.scaled_dot_product_attention(queries_ShNw, keys, values, attn_mask=visible_S1NL, dropout_p=rate)
    attended: Tensor = layer.output(mixed_ShNw.transpose(1, 2).flatten(2))
    return attended.unflatten(1, (num_states, num_centers))

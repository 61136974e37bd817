"""Centre attention to few keys, which moves both projections from the centres to the keys; any device and dtype.

A sequence has k centres for each of its Q states, but only L keys. So it is cheaper to project L keys and values than
k Q queries and results:

    <W_q x + b_q, key> = <x, W_q^T key> + <b_q, key>    and    (weights V) W_o = weights (V W_o), head by head.

Shapes: S sequences, Q states, k centres, h heads, L keys, w = d/h width of a head, d width.
"""

from __future__ import annotations

import math

from torch import Tensor

from model.cpu.dispatch import Part, Work, work_on
from model.cpu.dropout import dropout
from model.cpu.layer_parts import LayerParts


def center_attention_work(
    layer: LayerParts,  # noqa: ARG001 -- every path takes the same arguments
    centers_SQkd: Tensor,
    keys_values: tuple[Tensor, Tensor],
    visible_SQL: Tensor,  # noqa: ARG001
    rate: float,
) -> Work:
    """Return what the choice between the paths of `interest_centers.center_attention` depends on."""
    num_keys, width = keys_values[0].shape[2:]
    return work_on(centers_SQkd, Part.CENTER_ATTENTION, rate=rate, num_keys=num_keys, head_width=width)


def few_keys_attention(
    layer: LayerParts, centers_SQkd: Tensor, keys_values: tuple[Tensor, Tensor], visible_SQL: Tensor, rate: float
) -> Tensor:
    """Compute the result of `interest_centers.center_attention.plain`, which documents the arguments."""
    keys, values = keys_values
    num_sequences, num_heads, num_keys, _ = keys.shape
    num_states, num_centers = visible_SQL.shape[1], centers_SQkd.shape[2]
    hidden_SLQ = keys.new_zeros(visible_SQL.shape).masked_fill_(~visible_SQL, -math.inf).transpose(1, 2)
    keys_ShLd, values_ShLd, shift_ShL = _projected(layer, keys, values)
    if not rate:  # weights add up to 1 in each head, so 1/h of the bias in the values of each head adds the whole bias
        values_ShLd = values_ShLd + layer.output.bias / num_heads
    shift = hidden_SLQ[:, None] + shift_ShL[..., None]
    logits = keys_ShLd.flatten(1, 2) @ centers_SQkd.flatten(1, 2).transpose(1, 2)
    logits = logits.view(num_sequences, num_heads, num_keys, centers_SQkd.shape[1], num_centers)
    weights = dropout((logits + shift[..., None]).softmax(dim=2), rate, rate > 0)
    weights = weights.view(num_sequences, num_heads * num_keys, num_states * num_centers)
    found = weights.transpose(1, 2) @ values_ShLd.flatten(1, 2)
    if rate:
        found = found + layer.output.bias
    return found.unflatten(1, (num_states, num_centers))


def _projected(layer: LayerParts, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys and values that include the query and output projections, and what the query's bias adds to logits.

    Args:
        layer: the layer with these projections.
        keys: [S, h, L, w].
        values: [S, h, L, w].

    Returns:
        Keys and values, [S, h, L, d] each, and what is added to logits, [S, h, L].
    """
    num_heads, width = keys.shape[1], keys.shape[3]
    scaled = keys * (1 / math.sqrt(width))
    query = layer.query.weight.view(num_heads, width, -1)
    output = layer.output.weight.T.reshape(num_heads, width, -1)
    return scaled @ query, values @ output, (scaled * layer.query.bias.view(num_heads, 1, width)).sum(-1)

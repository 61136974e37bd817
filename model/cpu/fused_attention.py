"""Centre attention to few keys in compiled loops, in float32 on CPU and without dropout.

The computation is that of `few_keys.py`, with one autograd node instead of forty. The forward has one buffer for
attention weights, and the backward has one for their gradients.

Shapes: S sequences, Q states, k centres, h heads, L keys, w = d/h width of a head, d width.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.layers.layer_loops import softmax_over_keys, softmax_over_keys_backward
from model.cpu.layer_parts import LayerParts


def compiled_few_keys_attention(
    layer: LayerParts,
    centers_SQkd: Tensor,
    keys_values: tuple[Tensor, Tensor],
    visible_SQL: Tensor,
    rate: float,
) -> Tensor:
    """Compute the result of `interest_centers.center_attention.plain`, which documents the arguments, for rate 0."""
    assert rate == 0, "the compiled loops have no dropout"
    keys, values = keys_values
    query, output = layer.query, layer.output
    arguments = centers_SQkd, keys, values, query.weight, query.bias, output.weight, output.bias, visible_SQL
    return cast(Tensor, _FewKeys.apply(*arguments))


class _FewKeys(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, keys: Tensor, values: Tensor, *projections: Tensor) -> Tensor:
        query_dd, query_bias, output_dd, output_bias, visible_SQL = projections
        num_sequences, num_heads, num_keys, width = keys.shape
        num_states, k, d = visible_SQL.shape[1], states.shape[2], len(query_dd)
        by_head = num_heads, num_sequences * num_keys, width
        scaled = (keys * (1 / math.sqrt(width))).transpose(0, 1).reshape(by_head)
        own_values = values.transpose(0, 1).reshape(by_head)
        query, output = query_dd.view(num_heads, width, d), output_dd.T.view(num_heads, width, d)
        wide_keys = _by_sequence(torch.bmm(scaled, query), num_sequences, num_keys)
        # Weights add up to 1 in each head, so 1/h of the bias in the values of each head adds the whole bias.
        wide_values = _by_sequence(torch.bmm(own_values, output), num_sequences, num_keys).add_(output_bias / num_heads)
        shift = (scaled @ query_bias.view(num_heads, width, 1)).view(num_heads, num_sequences, num_keys)
        shift = shift.transpose(0, 1)[..., None] + torch.where(visible_SQL, 0.0, -math.inf).mT[:, None]
        weights = torch.empty(num_sequences, num_heads, num_keys, num_states, k)
        flat = num_sequences, num_heads * num_keys, num_states * k
        if _shared(states, weights):
            logits = (wide_keys.reshape(-1, d) @ states.reshape(k, d).T).view(num_sequences, num_heads, num_keys, 1, k)
        else:
            logits = weights
            torch.bmm(wide_keys, states.reshape(num_sequences, num_states * k, d).mT, out=weights.view(flat))
        softmax_over_keys(logits.numpy(), shift.numpy(), weights.numpy())
        ctx.save_for_backward(states, scaled, own_values, wide_keys, wide_values, weights, query, output, query_bias)
        return torch.bmm(weights.view(flat).mT, wide_values).view(num_sequences, num_states, k, d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, scaled, own_values, wide_keys, wide_values, weights, query, output, query_bias = ctx.saved_tensors
        num_sequences, num_heads, num_keys, num_states, k = weights.shape
        width, d = query.shape[1:]
        flat = num_sequences, num_heads * num_keys, num_states * k
        rows = grad.reshape(num_sequences, num_states * k, d)
        wide_values_grad = _by_head(torch.bmm(weights.view(flat), rows), num_heads, num_keys)
        weights_grad = torch.bmm(wide_values, rows.mT).view(weights.shape)
        shared = _shared(states, weights)
        logits_grad = torch.zeros(*weights.shape[:3], 1, k) if shared else weights_grad
        shift_grad = torch.empty(num_sequences, num_heads, num_keys)
        softmax_over_keys_backward(weights.numpy(), weights_grad.numpy(), logits_grad.numpy(), shift_grad.numpy())
        if shared:
            states_grad = (logits_grad.view(-1, k).T @ wide_keys.reshape(-1, d)).view(states.shape)
            wide_keys_grad = (logits_grad.view(-1, k) @ states.reshape(k, d)).view(wide_keys.shape)
        else:
            states_grad = torch.bmm(logits_grad.view(flat).mT, wide_keys).view(states.shape)
            wide_keys_grad = torch.bmm(logits_grad.view(flat), states.reshape(num_sequences, num_states * k, d))
        wide_keys_grad = _by_head(wide_keys_grad, num_heads, num_keys)
        shift_grad = shift_grad.transpose(0, 1).reshape(num_heads, 1, num_sequences * num_keys)
        # From [h, S L, w] back to the shape of the given keys and values.
        scaled_grad = torch.baddbmm(shift_grad.mT * query_bias.view(num_heads, 1, width), wide_keys_grad, query.mT)
        as_given = num_heads, num_sequences, num_keys, width
        return (
            states_grad,
            scaled_grad.mul_(1 / math.sqrt(width)).view(as_given).transpose(0, 1),
            torch.bmm(wide_values_grad, output.mT).view(as_given).transpose(0, 1),
            torch.bmm(scaled.mT, wide_keys_grad).view(d, d),
            torch.bmm(shift_grad, scaled).view(d),
            torch.bmm(own_values.mT, wide_values_grad).view(d, d).T,
            wide_values_grad.sum((0, 1)) / num_heads,
            None,
        )


def _shared(states: Tensor, weights: Tensor) -> bool:
    """Return whether states [1, 1, k, d] are shared by several sequences or states; weights [S, h, L, Q, k]."""
    return states.shape[:2] == (1, 1) and (weights.shape[0], weights.shape[3]) != (1, 1)


def _by_sequence(rows: Tensor, num_sequences: int, num_keys: int) -> Tensor:
    """Reorder [h, S L, d] -> [S, h L, d]."""
    num_heads, _, d = rows.shape
    by_head = rows.view(num_heads, num_sequences, num_keys, d)
    return by_head.transpose(0, 1).reshape(num_sequences, num_heads * num_keys, d)


def _by_head(rows: Tensor, num_heads: int, num_keys: int) -> Tensor:
    """Reorder [S, h L, d] -> [h, S L, d]."""
    num_sequences, _, d = rows.shape
    by_sequence = rows.view(num_sequences, num_heads, num_keys, d)
    return by_sequence.transpose(0, 1).reshape(num_heads, num_sequences * num_keys, d)

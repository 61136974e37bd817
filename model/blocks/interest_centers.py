"""Interest-centralised attention, equation by equation (MDSRec Eq. 10-16).

A modality has k interest centres, which are the means of clusters of items. For each state of a user's sequence, the
centres attend to the items that this state sees. The result is the state's own version of the k centres, its *personal*
centres.

In the paper, centres attend to a whole history. Here, the centres of the state after item t attend only to the items up
to t. So one forward of a sequence gives the states of all its targets, none of which sees later items, and they equal
those of a forward per prefix.

`center_attention` below is the plain form. Its decorator names the faster paths, and `model/cpu/dispatch.py` chooses
one. `center_chunks` divides a batch into chunks of bounded memory, and calls `personal_centers` for them; on a GPU,
`center_blocks` does.

Shapes: S sequences, L positions, Q requested states of a sequence, n states of all sequences, k centres, R items with a
role, d width, h heads, w = d/h width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from contracts.item_plan import SparseRows
from model.blocks.item_views import sparse_product
from model.blocks.sequence_encoder import KeysValues, TransformerLayer
from model.cpu.dispatch import Path, with_faster_paths
from model.cpu.dropout import dropout
from model.cpu.few_keys import center_attention_work, few_keys_attention
from model.cpu.fused_attention import compiled_few_keys_attention
from model.cpu.layer_parts import LayerParts
from model.cpu.torch_attention import kernel_center_attention


@dataclass(frozen=True)
class History:
    """The keys and values that the centres of Q states of each of S sequences attend to.

    Attributes:
        keys_values: per layer; the layer projects them from the sequence states that enter it.
        visible_SQL: bool, the keys that each state sees, at least one.
    """

    keys_values: Sequence[KeysValues]
    visible_SQL: Tensor


def center_vectors(center_rows: SparseRows, view_Rd: Tensor) -> Tensor:
    """Return Ehat_c^m = C_m Ehat_m, the centres before attention, [k, d] (Eq. 10, 11)."""
    return sparse_product(center_rows, view_Rd)


@with_faster_paths(
    center_attention_work,
    {
        Path.FEW_KEYS: few_keys_attention,
        Path.COMPILED: compiled_few_keys_attention,
        Path.TORCH_KERNEL: kernel_center_attention,
    },
)
def center_attention(
    layer: LayerParts, centers_SQkd: Tensor, keys_values: KeysValues, visible_SQL: Tensor, rate: float
) -> Tensor:
    """Return softmax(q K^T / sqrt(w)) V W_o + b_o with q = W_q centres + b_q, in h heads, [S, Q, k, d] (Eq. 12-14).

    Args:
        layer: the layer with these projections.
        centers_SQkd: the k centres of every state, or [1, 1, k, d] if they are the same for all states.
        keys_values: [S, h, L, w] each.
        visible_SQL: bool, the keys that each state sees, at least one.
        rate: dropout rate of the attention weights; 0: no dropout.
    """
    keys_ShLw, values_ShLw = keys_values
    queries_SQkd = layer.query(centers_SQkd)
    weights_ShLQk = _weights(queries_SQkd, keys_ShLw, visible_SQL)
    mixed_SQkd = _mixed(dropout(weights_ShLQk, rate, True), values_ShLw)
    return cast(Tensor, layer.output(mixed_SQkd))


def _weights(queries_SQkd: Tensor, keys_ShLw: Tensor, visible_SQL: Tensor) -> Tensor:
    """Return softmax(q K^T / sqrt(w)) over the visible keys, [S, h, L, Q, k].

    The softmax runs over the third dimension, so that on CPU it adds up long rows. Over a short last dimension, torch's
    softmax takes 20 ns per element.
    """
    num_sequences, num_heads, num_keys, width = keys_ShLw.shape
    _, num_states, num_centers, _ = queries_SQkd.shape
    queries = (queries_SQkd * (1 / math.sqrt(width))).flatten(1, 2).unflatten(2, (num_heads, width))
    logits = keys_ShLw @ queries.permute(0, 2, 3, 1)
    logits_ShLQk = logits.view(num_sequences, num_heads, num_keys, num_states, num_centers)
    hidden_SQL = keys_ShLw.new_zeros(visible_SQL.shape).masked_fill_(~visible_SQL, -math.inf)
    return (logits_ShLQk + hidden_SQL.transpose(1, 2)[:, None, ..., None]).softmax(dim=2)


def _mixed(weights_ShLQk: Tensor, values_ShLw: Tensor) -> Tensor:
    """Return the weighted sums of the values, heads side by side, [S, Q, k, d]."""
    num_states, num_centers = weights_ShLQk.shape[3:]
    mixed_SNhw = (weights_ShLQk.flatten(3).transpose(2, 3) @ values_ShLw).transpose(1, 2)
    return mixed_SNhw.unflatten(1, (num_states, num_centers)).flatten(3)


def center_layer(
    layer: TransformerLayer, centers: Tensor, attended: Tensor, rate: float, residual: bool, literal: bool
) -> Tensor:
    """Return the centres after the feed-forward that follows the attention, [n, k, d] (Eq. 15).

    Args:
        layer: the layer with the linear maps and norms.
        centers: the centres before the attention, [n, k, d] or [1, k, d].
        attended: [n, k, d], the results of the attention.
        rate: dropout rate.
        residual: whether there are residuals and LayerNorms as in the tower; the paper has neither.
        literal: whether the feed-forward is sigma((g W1 + b1) W2 + b2), as the paper prints it, instead of the
            Transformer's sigma(g W1 + b1) W2 + b2.
    """
    return cast(Tensor, layer(centers, attended, rate, residual, literal))


def personal_centers(
    centers_kd: Tensor,
    layers: Sequence[TransformerLayer],
    histories: Sequence[History],
    rate: float,
    residual: bool,
    literal: bool = False,
) -> Tensor:
    """Return E_c^m, the centres of each state after all layers, [n, k, d] (Eq. 16).

    In every layer, centres attend to the sequence states that *enter* the same layer of the tower. In the first layer
    the centres are the same for all states, so their queries are projected once.

    Args:
        centers_kd: the centres that `center_vectors` returns.
        layers: the tower's layers, or separate layers of the centres.
        histories: the n states belong to these, one history after the other.
        rate: dropout rate of the attention and the layers.
        residual: see `center_layer`.
        literal: see `center_layer`.
    """
    centers = centers_kd[None]
    own = [centers_kd[None, None]] * len(histories)
    for number, layer in enumerate(layers):
        if number:
            own = _by_history(centers, histories)
        attended = [
            center_attention(
                layer, queries, history.keys_values[number], history.visible_SQL, rate if layer.training else 0.0
            ).flatten(0, 1)
            for queries, history in zip(own, histories, strict=True)
        ]
        attended_nkd = torch.cat(attended) if len(attended) > 1 else attended[0]
        centers = center_layer(layer, centers, attended_nkd, rate, residual, literal)
    return centers


def _by_history(centers_nkd: Tensor, histories: Sequence[History]) -> list[Tensor]:
    """Return the centres of each history's states, [S, Q, k, d]."""
    sizes = [history.visible_SQL.shape[:2] for history in histories]
    parts = centers_nkd.split([num_sequences * num_states for num_sequences, num_states in sizes])
    return [part.unflatten(0, size) for part, size in zip(parts, sizes, strict=True)]

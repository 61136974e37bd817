"""Interest-centralised attention (MDSRec Eq. 11-16): each state's view of the catalogue's interest centres.

The paper's centres attend to a whole history. Here the centres of the state after item t attend to the items up
to t only, so that one forward of a sequence serves all its targets, and none sees its future: equal to
one forward per prefix.

Centres are k queries for every state, so their path is most of a step. It goes through a batch in *pieces* of its
groups, `_PIECE_ROWS` rows at a time (one row: one centre of one state): that bounds what is not kept for the backward,
and where the states of a whole sequence are asked for, a piece of early states leaves out the later keys.

Shapes: n states, S sequences, L positions, Q states asked for, k centres, d width, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from configs.schema import ModelConfig
from contracts.batch import SequenceGroup
from model.blocks.dropout import dropout
from model.blocks.sequence_encoder import KeysValues, TransformerLayer
from model.blocks.sequence_groups import Sequences
from model.cpu.fused_attention import few_keys_attention
from model.cpu.fused_layer import can_fuse

# Rows of a piece. On CPU 8,192 to 24,576 take about as long (docs/log.md).
_PIECE_ROWS = {"cpu": 16384}
_PIECE_ROWS_ELSEWHERE = 2**19
# States of one sequence in a piece at most, where later keys can be left out: half of a long sequence's are.
_PIECE_STATES = 32


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some states of some sequences of a group, and what they may see.

    Attributes:
        group: its number in the batch.
        sequences, states: slices of [S, Q].
        num_keys: keys beyond these are visible to none of the states.
        visible: bool [s, q, num_keys].
    """

    group: int
    sequences: slice
    states: slice
    num_keys: int
    visible: Tensor

    def seen(self, keys_values: KeysValues) -> KeysValues:
        """Of the keys and values of the group, [S, h, L, d/h] each, those of these sequences that a state may see."""
        keys, values = keys_values
        if len(self.visible) == len(keys) and self.num_keys == keys.shape[2]:
            return keys_values
        return keys[self.sequences, :, : self.num_keys], values[self.sequences, :, : self.num_keys]


def in_pieces(
    groups: Iterable[Sequences], num_centers: int, compute: Callable[[list[Piece]], Tensor], recompute: bool
) -> list[Tensor]:
    """`compute(pieces)` [n, d] for all states of all groups, put together: [S, Q, d] per group.

    A call gets as many pieces as have `_PIECE_ROWS` rows between them, of one group or several: groups are many and
    small, and each call costs dozens of operators.

    Args:
        groups: of the batch, in order.
        num_centers: k.
        compute: its n states are those of the pieces, one piece after the other; must treat them apart.
        recompute: keep nothing of a call for the backward but its inputs, and compute it again there.
    """
    groups = list(groups)
    pieces = [piece for number, group in enumerate(groups) for piece in _pieces(number, group, num_centers)]
    limit = _rows_at_once(groups[0])
    bundles: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        rows = piece.visible[..., 0].numel() * num_centers
        if not bundles or rows > room:
            bundles.append([])
            room = limit
        bundles[-1].append(piece)
        room -= rows
    runs: list[dict[int, list[Tensor]]] = [{} for _ in groups]
    for bundle in bundles:
        found = cast(Tensor, checkpoint(compute, bundle, use_reentrant=False)) if recompute else compute(bundle)
        sizes = [piece.visible.shape[:2] for piece in bundle]
        for piece, size, part in zip(bundle, sizes, found.split([s * q for s, q in sizes]), strict=True):
            runs[piece.group].setdefault(piece.sequences.start, []).append(part.unflatten(0, size))
    return [torch.cat([torch.cat(run, dim=1) for run in of_group.values()]) for of_group in runs]


def _pieces(number: int, group: Sequences, num_centers: int) -> Iterator[Piece]:
    """The states of a group, at most `_PIECE_ROWS` rows a piece, by sequences and then by states."""
    num_sequences, limit = len(group.lengths), _rows_at_once(group)
    step = max(1, min(group.num_queries, limit // num_centers))
    if group.asks_for_all:
        step = min(step, _PIECE_STATES)
    stride = max(1, limit // (step * num_centers))
    visible = group.visible()
    for first in range(0, max(1, num_sequences), stride):
        sequences = slice(first, min(first + stride, num_sequences))
        for start in range(0, group.num_queries, step):
            states = slice(start, min(start + step, group.num_queries))
            num_keys = states.stop if group.asks_for_all else group.length
            yield Piece(
                group=number,
                sequences=sequences,
                states=states,
                num_keys=num_keys,
                visible=visible[sequences, states, :num_keys],
            )


def _rows_at_once(group: Sequences) -> int:
    return _PIECE_ROWS.get(group.lengths.device.type, _PIECE_ROWS_ELSEWHERE)


def stored_bytes(config: ModelConfig, num_centers: int, groups: Iterable[SequenceGroup], fused: bool) -> int:
    """What the backward keeps of one modality's centre path for these groups, unless it is recomputed.

    Per layer in float32 (elsewhere the feed-forward keeps its width twice): of a row the widths that its products,
    norms and activation keep, fewer where `fused_layer` does them, and one attention weight per head and key; of a
    sequence with few keys, these and the values projected for every head.
    """
    inner = config.ffn_dim or 4 * config.dim
    floats = 0
    for group in groups:
        weights = config.num_heads * group.length
        few_keys = _has_few_keys(group.length, config.dim // config.num_heads)
        widths = (3 if few_keys else 5) if fused else 8
        floats += group.count * group.states * num_centers * (widths * config.dim + inner + weights)
        if few_keys:
            floats += group.count * 3 * weights * config.dim
    return 4 * config.num_layers * floats


def _has_few_keys(num_keys: int, width: int) -> bool:
    """Whether keys and values take over the projections of a head of this width: h L d multiply-adds for d (d + L)."""
    return num_keys <= 2 * width


def personal_centers(
    centers_kd: Tensor,
    layers: Iterable[TransformerLayer],
    keys_values: Sequence[Sequence[KeysValues]],
    visible: Sequence[Tensor],
    rate: float,
    residual: bool,
    literal: bool = False,
) -> Tensor:
    """E_c^m: the centres after attending, layer by layer, to what each state may see; [n, k, d].

    At layer l the queries are the centre states and the keys and values those of the sequence states
    *entering* layer l. Layer 1 has the same queries everywhere and projects them once.

    Args:
        centers_kd: [k, d], Ehat_c^m = C_m Ehat_m.
        layers: the tower's own layers, or the centres' own.
        keys_values: per piece of the batch, per layer, made by that layer from the states entering it.
        visible: per piece bool [S, Q, L], True for at least one key everywhere. The n states are those of the
            pieces, one after the other.
        rate: dropout rate inside this path.
        residual: residuals and LayerNorms as in the tower; with False the attention's output goes straight into the
            feed-forward, as in the paper.
        literal: the feed-forward of Eq. 15, sigma((g W1 + b1) W2 + b2); with False the Transformer's,
            sigma(g W1 + b1) W2 + b2.
    """
    sizes = [seen.shape[:2] for seen in visible]
    states, own = centers_kd[None], [centers_kd[None, None]] * len(sizes)
    for number, layer in enumerate(layers):
        if number:
            parts = states.split([s * q for s, q in sizes])
            own = [part.unflatten(0, size) for part, size in zip(parts, sizes, strict=True)]
        found = [
            center_attention(layer, queries, pairs[number], seen, rate).flatten(0, 1)
            for queries, pairs, seen in zip(own, keys_values, visible, strict=True)
        ]
        states = layer(states, torch.cat(found) if len(found) > 1 else found[0], rate, residual, literal)
    return states


def center_attention(
    layer: TransformerLayer, states: Tensor, keys_values: KeysValues, visible_SQL: Tensor, rate: float
) -> Tensor:
    """softmax(q K^T / sqrt(d/h)) V W_o + b_o for k centres of every state, q = W_q states + b_q; [S, Q, k, d].

    Where keys are few, both projections are moved from the k Q centres of a sequence to its L keys and values
    (`_projected`): h L d multiply-adds a centre each in place of d (d + L).

    Keys run down, centres across: a softmax over few keys is then a sum of long rows, where torch's over a short
    last dimension takes 20 ns an element on CPU.

    Args:
        layer: whose projections these are.
        states: [S, Q, k, d] or, where all have the same, [1, 1, k, d].
        keys_values: [S, h, L, d/h] each.
        visible_SQL: bool, the keys that a state sees.
        rate: dropout rate of the weights.
    """
    keys, values = keys_values
    num_sequences, num_heads, num_keys, width = keys.shape
    num_states, num_centers = visible_SQL.shape[1], states.shape[2]
    rate = rate if layer.training else 0.0
    few_keys = _has_few_keys(num_keys, width)
    if few_keys and not rate and can_fuse(states):
        return few_keys_attention(layer.query, layer.output, states, keys, values, visible_SQL)
    hidden = keys.new_zeros(visible_SQL.shape).masked_fill_(~visible_SQL, -math.inf).transpose(1, 2)
    shift = hidden[:, None]  # of the logits, [S, 1 or h, L, Q]
    if few_keys:
        keys, values, key_shift = _projected(layer, keys, values)
        if not rate:  # weights add up to 1 in each head
            values = values + layer.output.bias / num_heads
        queries = states.flatten(1, 2)
        shift = shift + key_shift[..., None]
        across = queries.transpose(1, 2)
        logits = keys.flatten(1, 2) @ across
    else:
        queries = layer.query(states) * (1 / math.sqrt(width))
        across = queries.flatten(1, 2).unflatten(2, (num_heads, width)).permute(0, 2, 3, 1)
        logits = keys @ across
    logits = logits.view(num_sequences, num_heads, num_keys, states.shape[1], num_centers)
    weights = dropout((logits + shift[..., None]).softmax(dim=2), rate, rate > 0)
    if few_keys:
        weights = weights.view(num_sequences, num_heads * num_keys, num_states * num_centers)
        found = weights.transpose(1, 2) @ values.flatten(1, 2)
        if rate:
            found = found + layer.output.bias
        return found.unflatten(1, (num_states, num_centers))
    weights = weights.view(num_sequences, num_heads, num_keys, num_states * num_centers)
    mixed = (weights.transpose(2, 3) @ values).transpose(1, 2)
    found = layer.output(mixed.reshape(num_sequences, num_states, num_centers, num_heads * width))
    return cast(Tensor, found)


def _projected(layer: TransformerLayer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values that stand for the query and output projections too, and what the query's bias adds to logits.

    <W_q x + b_q, k> = <x, W_q^T k> + <b_q, k>, and (w V) W_o = w (V W_o), head by head.

    Args:
        keys, values: [S, h, L, d/h].
    Returns:
        [S, h, L, d] twice, and [S, h, L].
    """
    num_heads, width = keys.shape[1], keys.shape[3]
    scaled = keys * (1 / math.sqrt(width))
    query = layer.query.weight.view(num_heads, width, -1)
    output = layer.output.weight.T.reshape(num_heads, width, -1)
    return scaled @ query, values @ output, (scaled * layer.query.bias.view(num_heads, 1, width)).sum(-1)

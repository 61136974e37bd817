"""The states of a batch in chunks of bounded memory, for the centre path.

The centre path computes k rows for every state, so it is most of a step. A *chunk* is a part of a group of sequences:
some states of some of them, `_CHUNK_ROWS` rows at most (one row: one centre of one state). Chunks bound the memory of
what the backward does not keep. Where the states of a whole sequence are asked for, a chunk of early states leaves
out the later keys.

Shapes: n states, S sequences, L positions, Q states asked for of a sequence, k centres, d width, h heads, w = d/h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from configs.schema import ModelConfig
from contracts.batch import SequenceGroup
from model.blocks.center_memory import is_recomputed
from model.blocks.interest_centers import History
from model.blocks.sequence_encoder import KeysValues
from model.blocks.sequence_groups import Sequences

# Rows of a chunk. On CPU 8,192 to 24,576 take about as long (docs/log.md).
_CHUNK_ROWS = {"cpu": 16384}
_CHUNK_ROWS_ELSEWHERE = 2**19
# States of one sequence in a chunk at most, where later keys can be left out: half of a long sequence's are.
_CHUNK_STATES = 32


@dataclass(frozen=True)
class EncodedGroup:
    """One stream of a group: what the centres of its states are made from.

    Attributes:
        states_SQd: e_m, the states asked for.
        keys_values: per layer [S, h, L, w] each.
    """

    states_SQd: Tensor
    keys_values: Sequence[KeysValues]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Some states of some sequences of a group, and what they see.

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

    def history(self, group: EncodedGroup) -> History:
        return History([self._seen(pair) for pair in group.keys_values], self.visible)

    def own_states(self, group: EncodedGroup) -> Tensor:
        """[s * q, d]."""
        return group.states_SQd[self.sequences, self.states].flatten(0, 1)

    def _seen(self, keys_values: KeysValues) -> KeysValues:
        keys, values = keys_values
        if len(self.visible) == len(keys) and self.num_keys == keys.shape[2]:
            return keys_values
        return keys[self.sequences, :, : self.num_keys], values[self.sequences, :, : self.num_keys]


@dataclass(frozen=True)
class CenterChunks:
    """How the centre path of a batch is cut up, and whether the backward computes it again.

    Attributes:
        sequences: the groups of the batch, in order.
        recompute: see `in_chunks`.
    """

    sequences: list[Sequences]
    recompute: bool

    @classmethod
    def within_budget(cls, config: ModelConfig, centers: Sequence[Tensor], sequences: list[Sequences]) -> CenterChunks:
        """Recomputes where the backward would keep more than the config allows; `centers` per modality [k, d]."""
        shapes = [SequenceGroup(group.count, group.length, group.num_queries) for group in sequences]
        return cls(sequences, is_recomputed(config, centers, shapes))

    def compute(
        self, encoded: Sequence[EncodedGroup], num_centers: int, compute: Callable[[Tensor, list[History]], Tensor]
    ) -> list[Tensor]:
        """See `in_chunks`."""
        return in_chunks(self.sequences, encoded, num_centers, compute, self.recompute)


def in_chunks(
    groups: Iterable[Sequences],
    encoded: Sequence[EncodedGroup],
    num_centers: int,
    compute: Callable[[Tensor, list[History]], Tensor],
    recompute: bool,
) -> list[Tensor]:
    """`compute(states_nd, histories)` [n, d] for all states of all groups; per group [S, Q, d].

    A call gets as many chunks as have `_CHUNK_ROWS` rows between them, of one group or several. Groups are many and
    small, and each call costs dozens of operators.

    Args:
        groups: of the batch, in order.
        encoded: of each group.
        num_centers: k.
        compute: its n states are those of the histories, one history after the other; it must treat states apart.
        recompute: keep nothing of a call for the backward but its inputs, and compute it again there.
    """
    groups = list(groups)

    def compute_bundle(bundle: list[_Chunk]) -> Tensor:
        histories = [chunk.history(encoded[chunk.group]) for chunk in bundle]
        return compute(torch.cat([chunk.own_states(encoded[chunk.group]) for chunk in bundle]), histories)

    runs: list[dict[int, list[Tensor]]] = [{} for _ in groups]
    for bundle in _bundles(groups, num_centers):
        found = (
            cast(Tensor, checkpoint(compute_bundle, bundle, use_reentrant=False))
            if recompute
            else compute_bundle(bundle)
        )
        sizes = [chunk.visible.shape[:2] for chunk in bundle]
        for chunk, size, part in zip(bundle, sizes, found.split([s * q for s, q in sizes]), strict=True):
            runs[chunk.group].setdefault(chunk.sequences.start, []).append(part.unflatten(0, size))
    return [torch.cat([torch.cat(run, dim=1) for run in of_group.values()]) for of_group in runs]


def _bundles(groups: list[Sequences], num_centers: int) -> list[list[_Chunk]]:
    """All chunks of all groups, in order; those of one bundle go through the layers together."""
    limit = _rows_at_once(groups[0])
    bundles: list[list[_Chunk]] = []
    room = 0
    for number, group in enumerate(groups):
        for chunk in _chunks(number, group, num_centers):
            rows = chunk.visible[..., 0].numel() * num_centers
            if not bundles or rows > room:
                bundles.append([])
                room = limit
            bundles[-1].append(chunk)
            room -= rows
    return bundles


def _chunks(number: int, group: Sequences, num_centers: int) -> Iterator[_Chunk]:
    """The states of a group, at most `_CHUNK_ROWS` rows a chunk, by sequences and then by states."""
    num_sequences, limit = len(group.lengths), _rows_at_once(group)
    step = max(1, min(group.num_queries, limit // num_centers))
    if group.requests_all:
        step = min(step, _CHUNK_STATES)
    stride = max(1, limit // (step * num_centers))
    visible = group.visible()
    for first in range(0, max(1, num_sequences), stride):
        sequences = slice(first, min(first + stride, num_sequences))
        for start in range(0, group.num_queries, step):
            states = slice(start, min(start + step, group.num_queries))
            num_keys = states.stop if group.requests_all else group.length
            yield _Chunk(
                group=number,
                sequences=sequences,
                states=states,
                num_keys=num_keys,
                visible=visible[sequences, states, :num_keys],
            )


def _rows_at_once(group: Sequences) -> int:
    return _CHUNK_ROWS.get(group.lengths.device.type, _CHUNK_ROWS_ELSEWHERE)

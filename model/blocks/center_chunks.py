"""Runs centre attention over a batch in chunks of bounded memory.

The centre path, which is the computation of all layers of the interest centres, computes k rows for every state and
dominates the time of a step. A row is one centre of one state. A *chunk* is some states of some sequences of a group,
with at most `_CHUNK_ROWS` rows. Chunks bound the memory of intermediate results that the backward does not keep. If all
states of every sequence are requested, a chunk of early states also leaves out the later keys, which these states
cannot see. On a GPU there are blocks instead (`center_blocks`).

Shapes: n states, S sequences, L positions, Q requested states of a sequence, k centres, d width, h heads, w = d/h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import SequenceGroup
from model.blocks.center_blocks import CenterBlocks
from model.blocks.center_memory import is_recomputed
from model.blocks.interest_centers import History
from model.blocks.recompute import recomputed
from model.blocks.sequence_encoder import KeysValues
from model.blocks.sequence_groups import Sequences
from model.cpu.dispatch import Part, Path, choose, is_exporting, work_on

# Rows of a chunk. On CPU, 8,192 to 24,576 take about the same time (docs/log.md).
_CHUNK_ROWS = 16384
# Most states of one sequence in a chunk, if later keys can be left out. It leaves out half the keys of long sequences.
_CHUNK_STATES = 32


@dataclass(frozen=True)
class EncodedGroup:
    """One stream of a group after its tower, from which the centres of its states are computed.

    Attributes:
        states_SQd: e_m, the requested states.
        keys_values: per layer [S, h, L, w] each.
    """

    states_SQd: Tensor
    keys_values: Sequence[KeysValues]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Some states of some sequences of a group, and the keys that they see.

    Attributes:
        group: number of the group in the batch.
        sequences: slice of the S sequences.
        states: slice of the Q states.
        num_keys: number of keys that are used; none of the states sees a later key.
        visible: bool [s, q, num_keys], the keys that each state sees.
    """

    group: int
    sequences: slice
    states: slice
    num_keys: int
    visible: Tensor

    def history(self, group: EncodedGroup) -> History:
        return History([self._seen(pair) for pair in group.keys_values], self.visible)

    def own_states(self, group: EncodedGroup) -> Tensor:
        """Return the chunk's states, [s * q, d]."""
        return group.states_SQd[self.sequences, self.states].flatten(0, 1)

    def _seen(self, keys_values: KeysValues) -> KeysValues:
        keys, values = keys_values
        if self.visible.shape[0] == keys.shape[0] and self.num_keys == keys.shape[2]:
            return keys_values
        return keys[self.sequences, :, : self.num_keys], values[self.sequences, :, : self.num_keys]


@dataclass(frozen=True)
class CenterChunks:
    """The groups of a batch whose centre path parts in chunks, and whether the backward recomputes it.

    Attributes:
        sequences: the groups of the batch, in order.
        recompute: see `in_chunks`.
        blocks: the same states in blocks, if the device computes blocks instead of chunks; otherwise None.
    """

    sequences: list[Sequences]
    recompute: bool
    blocks: CenterBlocks | None = None

    @classmethod
    def within_budget(
        cls, config: ModelConfig, centers: Sequence[Tensor], sequences: list[Sequences], num_states: int
    ) -> CenterChunks:
        """Choose recomputation if the backward would otherwise keep more memory than the config allows.

        Args:
            config: its `mdsrec.center_memory_gib` is the limit.
            centers: per modality [k, d].
            sequences: the groups of the batch.
            num_states: n.
        """
        shapes = [SequenceGroup(group.count, group.length, group.num_queries) for group in sequences]
        blocks = None
        if centers and choose(work_on(centers[0], Part.CENTER_STATES)).path is Path.BLOCKS:
            blocks = CenterBlocks.of(sequences, num_states)
            num_blocks, size, longest = blocks.visible_PqL.shape
            shapes = [SequenceGroup(num_blocks, longest, size)]
        return cls(sequences, is_recomputed(config, centers, shapes), blocks)

    def compute(
        self, encoded: Sequence[EncodedGroup], num_centers: int, compute: Callable[[Tensor, list[History]], Tensor]
    ) -> list[Tensor]:
        """See `in_chunks`."""
        if self.blocks is None:
            return in_chunks(self.sequences, encoded, num_centers, compute, self.recompute)
        states, keys_values = [of.states_SQd for of in encoded], [of.keys_values for of in encoded]
        return self.blocks.compute(states, keys_values, num_centers, compute, self.recompute)


def in_chunks(
    groups: Iterable[Sequences],
    encoded: Sequence[EncodedGroup],
    num_centers: int,
    compute: Callable[[Tensor, list[History]], Tensor],
    recompute: bool,
) -> list[Tensor]:
    """Call `compute(states_nd, histories)`, which returns [n, d], for all states; return [S, Q, d] per group.

    Each call gets as many chunks, of one group or several, as have `_CHUNK_ROWS` rows together: groups are many and
    small, and each call costs dozens of operators.

    Args:
        groups: the groups of the batch, in order.
        encoded: the stream of each group.
        num_centers: k.
        compute: its n states belong to the histories, one history after the other. It must treat states independently
            of each other.
        recompute: whether to keep only the inputs of a call, and call it again in the backward.
    """
    groups = list(groups)

    def compute_bundle(bundle: list[_Chunk], _: Tensor) -> Tensor:
        histories = [chunk.history(encoded[chunk.group]) for chunk in bundle]
        return compute(torch.cat([chunk.own_states(encoded[chunk.group]) for chunk in bundle]), histories)

    parts: list[dict[int, list[Tensor]]] = [{} for _ in groups]
    for bundle in _bundles(groups, num_centers):
        device_tensor = encoded[0].states_SQd  # by which the second computation knows whose random numbers to restore
        found = (
            recomputed(compute_bundle, bundle, device_tensor) if recompute else compute_bundle(bundle, device_tensor)
        )
        sizes = [chunk.visible.shape[:2] for chunk in bundle]
        for chunk, size, part in zip(bundle, sizes, found.split([s * q for s, q in sizes]), strict=True):
            parts[chunk.group].setdefault(chunk.sequences.start, []).append(part.unflatten(0, size))
    return [torch.cat([torch.cat(part, dim=1) for part in of_group.values()]) for of_group in parts]


def _bundles(groups: list[Sequences], num_centers: int) -> list[list[_Chunk]]:
    """Return all chunks of all groups in order, divided into bundles; a bundle is computed in one call."""
    limit = _CHUNK_ROWS
    bundles: list[list[_Chunk]] = []
    room = 0
    for number, group in enumerate(groups):
        for chunk in _chunks(number, group, num_centers):
            rows = 0 if is_exporting() else chunk.visible[..., 0].numel() * num_centers
            if not bundles or rows > room:
                bundles.append([])
                room = limit
            bundles[-1].append(chunk)
            room -= rows
    return bundles


def _chunks(number: int, group: Sequences, num_centers: int) -> Iterator[_Chunk]:
    """Yield the chunks of a group, each with at most `_CHUNK_ROWS` rows: by sequences, then by states.

    While a program is exported, the number of sequences is not known, and the whole group is one chunk.
    """
    if is_exporting():
        whole = slice(None)
        yield _Chunk(group=number, sequences=whole, states=whole, num_keys=group.length, visible=group.visible())
        return
    num_sequences, limit = len(group.lengths), _CHUNK_ROWS
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

"""Runs centre attention over a batch in blocks of one shape, so that a GPU launches one kernel for all of them.

A *block* is some consecutive requested states of one sequence, `_BLOCK_STATES` of them or one per sequence if no
sequence requests more. All blocks of a batch form one tensor, whatever the groups of their sequences, so each equation
is one operator. The CPU instead takes chunks of groups (`center_chunks`), which leave out keys that no state sees.

The number of blocks must be known without reading lengths from the device, for which the host would have to wait. So
there are as many blocks as such sequences can have at most, and those that are left over repeat a state.

Shapes: n requested states of a batch, S sequences of all groups, P blocks, q states of a block, L longest length, k
centres, d width, h heads, w = d/h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.blocks.interest_centers import History
from model.blocks.recompute import recomputed
from model.blocks.sequence_encoder import KeysValues
from model.blocks.sequence_groups import Sequences

# Most states of a block. With 16 centres, a block has 256 queries, which are several tiles of an attention kernel.
_BLOCK_STATES = 16
# Rows, one for each centre of each state, that are computed at a time if the backward computes them again.
_ROWS_AT_ONCE = 2**19


@dataclass(frozen=True, kw_only=True)
class CenterBlocks:
    """The requested states of a batch in blocks.

    Attributes:
        sizes: (S_g, Q_g) of each group.
        sequence_P: int64, the sequence of each block, counted over all groups.
        row_Pq: int64, the place of each state among the padded states of all groups.
        visible_PqL: bool, the keys that each state sees.
        place_of_row: int64 [sum S_g Q_g], the place of each padded state among the P q states of the blocks; of
            padding, that of a state of its sequence.
    """

    sizes: list[tuple[int, int]]
    sequence_P: Tensor
    row_Pq: Tensor
    visible_PqL: Tensor
    place_of_row: Tensor

    @classmethod
    def of(cls, groups: Sequence[Sequences], num_states: int) -> CenterBlocks:
        """Return the blocks of a batch.

        Args:
            groups: the groups of the batch, in order, without masks.
            num_states: n, the number of requested states of all groups.
        """
        assert all(group.masked is None for group in groups), "states at masks see later items too"
        device, count = groups[0].lengths.device, sum(group.count for group in groups)
        lengths_S = torch.cat([group.lengths for group in groups])
        counts_S = torch.cat([group.num_states for group in groups])
        # Of a group of which all states are computed, the last ones of each sequence are requested.
        skipped_S = torch.cat([_skipped(group) for group in groups])
        starts_S = torch.cat(_row_starts(groups, device))
        size = min(_BLOCK_STATES, max(group.num_queries for group in groups))
        num_blocks = (num_states + count * (size - 1)) // size  # sum over sequences of ceil(Q_s / q), at most
        ends_S = ((counts_S + size - 1) // size).cumsum(0)
        first_block_S = ends_S - (counts_S + size - 1) // size
        blocks_P = torch.arange(num_blocks, device=device)
        sequence_P = torch.searchsorted(ends_S, blocks_P, right=True).clamp(max=max(0, count - 1))
        state_Pq = (blocks_P - first_block_S[sequence_P])[:, None] * size + torch.arange(size, device=device)
        counts_P1 = counts_S[sequence_P][:, None]
        state_Pq = torch.minimum(state_Pq, counts_P1 - 1)
        last_Pq = lengths_S[sequence_P][:, None] - counts_P1 + state_Pq
        longest = max(group.length for group in groups)
        places = [torch.arange(group.num_queries, device=device).expand(group.count, -1).flatten() for group in groups]
        sequence_of_row = [
            torch.arange(group.count, device=device)[:, None].expand(-1, group.num_queries).flatten() + before
            for group, before in zip(groups, _sums_before([group.count for group in groups]), strict=True)
        ]
        of_row = torch.cat(sequence_of_row)
        state_of_row = torch.minimum((torch.cat(places) - skipped_S[of_row]).clamp(min=0), counts_S[of_row] - 1)
        return cls(
            sizes=[(group.count, group.num_queries) for group in groups],
            sequence_P=sequence_P,
            row_Pq=(starts_S + skipped_S)[sequence_P][:, None] + state_Pq,
            visible_PqL=torch.arange(longest, device=device) <= last_Pq[:, :, None],
            place_of_row=first_block_S[of_row] * size + state_of_row,
        )

    def compute(
        self,
        states: Sequence[Tensor],
        keys_values: Sequence[Sequence[KeysValues]],
        num_centers: int,
        compute: Callable[[Tensor, list[History]], Tensor],
        recompute: bool,
    ) -> list[Tensor]:
        """Call `compute(states_nd, histories)` for all requested states; return its results per group, [S_g, Q_g, d].

        Args:
            states: per group [S_g, Q_g, d].
            keys_values: per group and layer, [S_g, h, L_g, w] each.
            num_centers: k.
            compute: see `center_chunks.in_chunks`.
            recompute: whether to keep only the inputs, and compute the rest again in the backward.
        """
        of_rows = _joined([group.flatten(0, 1) for group in states])
        layers = [self._joined_keys(pairs) for pairs in zip(*keys_values, strict=True)]

        def of_blocks(rows: Tensor, first: int, last: int) -> Tensor:
            sequences = self.sequence_P[first:last]
            seen = [(keys.index_select(0, sequences), values.index_select(0, sequences)) for keys, values in layers]
            visible = self.visible_PqL[first:last]
            return compute(rows.index_select(0, self.row_Pq[first:last].flatten()), [History(seen, visible)])

        num_blocks, size = self.row_Pq.shape
        step = max(1, _ROWS_AT_ONCE // (size * num_centers)) if recompute else max(1, num_blocks)
        parts = [
            recomputed(of_blocks, of_rows, first, first + step)
            if recompute
            else of_blocks(of_rows, first, first + step)
            for first in range(0, max(1, num_blocks), step)
        ]
        padded = _joined(parts).index_select(0, self.place_of_row)
        found = padded.split([count * queries for count, queries in self.sizes])
        return [rows.unflatten(0, size) for rows, size in zip(found, self.sizes, strict=True)]

    def _joined_keys(self, pairs: Sequence[KeysValues]) -> KeysValues:
        """Return the keys and values of all groups, padded to the same length, [S, h, L, w] each."""
        longest = self.visible_PqL.shape[2]

        def joined(parts: list[Tensor]) -> Tensor:
            return _joined([F.pad(x, (0, 0, 0, longest - x.shape[2])) if x.shape[2] < longest else x for x in parts])

        return joined([keys for keys, _ in pairs]), joined([values for _, values in pairs])


def _skipped(group: Sequences) -> Tensor:
    """Return how many of a sequence's padded states come before its first requested one, int64 [S_g]."""
    return group.lengths - group.num_states if group.requests_all else torch.zeros_like(group.lengths)


def _row_starts(groups: Sequence[Sequences], device: torch.device) -> list[Tensor]:
    """Return, per group, the place of each sequence's first padded state among those of all groups, int64 [S_g]."""
    before = _sums_before([group.count * group.num_queries for group in groups])
    return [
        torch.arange(group.count, device=device) * group.num_queries + rows
        for group, rows in zip(groups, before, strict=True)
    ]


def _sums_before(numbers: list[int]) -> list[int]:
    return [sum(numbers[:place]) for place in range(len(numbers))]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]

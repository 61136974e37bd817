"""Reads all interactions once: lengths, repeats, targets, gaps between interactions, and interactions by period.

U users, N items, E interactions. Memory: one block of interactions and the popularity of items, and one bit for each
item if a user has more interactions than a block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from data.dataset import Dataset
from experiments.inspection.blocks import BLOCK, Block, Interactions, blocks, interactions, with_previous
from experiments.inspection.counting import MagnitudeCounts, ValueCounts
from experiments.inspection.facts import Bar, HistoryFacts, RepeatFacts, SplitFacts, TimeFacts
from experiments.inspection.stated import stated
from experiments.inspection.time_axis import MAGNITUDES, TimeAxis, time_axis

_MOST_BARS = 20
_SHORT = 3  # leave-one-out evaluates no user with fewer interactions


@dataclass(kw_only=True)
class SequencePass:
    """The counts of one pass; `add` takes the blocks in order.

    Attributes:
        popularity: int64 [N], training interactions of the items.
    """

    data: Dataset
    popularity: np.ndarray
    axis: TimeAxis | None
    lengths: ValueCounts = field(default_factory=ValueCounts)
    targets: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("train", "valid", "test", "untrained_test"), 0)
    )
    num_repeats: int = 0
    num_in_a_row: int = 0
    gaps: MagnitudeCounts = field(default_factory=MagnitudeCounts)
    num_gaps: int = 0
    num_equal: int = 0
    num_at_once: int = 0
    num_with_gaps: int = 0
    num_test_before: int = 0
    _is_used: np.ndarray = field(init=False)  # bool [N], items with an interaction
    _seen: np.ndarray | None = None  # bool [N], the items of a user with several blocks

    def __post_init__(self) -> None:
        self._is_used = self.popularity > 0

    @property
    def num_unused(self) -> int:
        """Number of items without any interaction."""
        return int((~self._is_used).sum())

    def add(self, block: Block) -> None:
        """Count a block."""
        rows = interactions(self.data, block)
        begins = block.start == self.data.offsets[block.first]
        if begins:
            self._add_users(block)
        items, before = with_previous(self.data.items, block)
        self._is_used[items] = True
        self.num_in_a_row += int(((items == before) & (rows.positions > 0)).sum())
        self.num_repeats += len(items) - self._num_new(items, rows, block, begins)
        for part, mask in (("train", rows.is_train), ("valid", rows.is_valid), ("test", rows.is_test)):
            self.targets[part] += int(mask.sum())
        self.targets["untrained_test"] += int((self.popularity[items[rows.is_test]] == 0).sum())
        if self.axis is not None:
            assert self.data.timestamps is not None
            self._add_times(*with_previous(self.data.timestamps, block), rows, self.axis)

    def _add_users(self, block: Block) -> None:
        offsets = self.data.offsets[block.first : block.last + 1]
        lengths = np.diff(offsets)
        self.lengths.add(lengths)
        if self.data.timestamps is not None:
            several = lengths > 1
            first, last = self.data.timestamps[offsets[:-1][several]], self.data.timestamps[offsets[1:][several] - 1]
            self.num_with_gaps += int(several.sum())
            self.num_at_once += int((first == last).sum())

    def _num_new(self, items: np.ndarray, rows: Interactions, block: Block, begins: bool) -> int:
        """Return how many interactions of a block are the first of their user with their item."""
        if begins and block.stop == self.data.offsets[block.last]:
            keys = np.sort(rows.users * self.data.num_items + items)
            return 1 + int((keys[1:] != keys[:-1]).sum())
        if begins:
            self._seen = np.zeros(self.data.num_items, bool)
        assert self._seen is not None
        distinct = np.unique(items)
        num_new = int((~self._seen[distinct]).sum())
        self._seen[distinct] = True
        return num_new

    def _add_times(self, times: np.ndarray, before: np.ndarray, rows: Interactions, axis: TimeAxis) -> None:
        # Times ascend within a user. The difference of two int64 may exceed int64, but never uint64.
        gaps = (times - before)[rows.positions > 0].view(np.uint64)
        self.gaps.add(gaps.astype(np.float64))
        self.num_gaps += len(gaps)
        self.num_equal += int((gaps == 0).sum())
        axis.add(times)
        if axis.last_training is not None:
            self.num_test_before += int((times[rows.is_test] < axis.last_training).sum())

    def split_facts(self) -> SplitFacts:
        parameters = stated(self.data.manifest, "split")
        method = str(parameters.pop("method", "not stated"))
        return SplitFacts(method=method, parameters=parameters, **self.targets)

    def repeat_facts(self) -> RepeatFacts:
        return RepeatFacts(num_repeats=self.num_repeats, num_in_a_row=self.num_in_a_row)

    def history_facts(self) -> HistoryFacts:
        values, counts = self.lengths.values, self.lengths.counts
        return HistoryFacts(
            lengths=self.lengths.spread(),
            bars=_length_bars(values, counts),
            num_short=int(counts[values < _SHORT].sum()),
            num_at_longest=int(counts[-1]),
        )

    def time_facts(self) -> TimeFacts | None:
        if self.axis is None:
            return None
        return TimeFacts(
            unit=self.axis.unit,
            is_stated=self.axis.is_stated,
            first=self.axis.first,
            last=self.axis.last,
            last_training=self.axis.last_training,
            by_magnitude=dict(zip(MAGNITUDES, self.axis.by_magnitude.tolist(), strict=True)),
            period=self.axis.period,
            bars=self.axis.bars(),
            num_outside=self.axis.num_outside,
            far=() if self.axis.far is None else self.axis.far.found(),
            gaps=self.gaps.spread(),
            num_gaps=self.num_gaps,
            num_equal=self.num_equal,
            num_users_at_once=self.num_at_once,
            num_users_with_gaps=self.num_with_gaps,
            num_test_before=self.num_test_before,
        )


def sequence_pass(data: Dataset, popularity: np.ndarray, size: int = BLOCK) -> SequencePass:
    """Read all interactions in blocks of `size`, and return the counts."""
    found = SequencePass(data=data, popularity=popularity, axis=time_axis(data, size))
    for block in blocks(data.offsets, size):
        found.add(block)
    return found


def _length_bars(values: np.ndarray, counts: np.ndarray) -> tuple[Bar, ...]:
    """Return users by length: a bar for each length if few bars are enough, else ranges that widen with the length."""
    least, most = int(values[0]), int(values[-1])
    if most - least < _MOST_BARS:
        edges = list(range(least, most + 2))
    else:
        every = sorted({1, *(factor << power for power in range(most.bit_length()) for factor in (2, 3))})
        first = max(edge for edge in every if edge <= least)
        edges = [edge for edge in every if first <= edge <= most]
        edges.append(next(edge for edge in every if edge > most))
    bars = []
    for low, high in pairwise(edges):
        inside = (values >= low) & (values < high)
        bars.append(Bar(label=str(low) if high == low + 1 else f"{low}-{high - 1}", count=int(counts[inside].sum())))
    return tuple(bars)

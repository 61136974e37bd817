"""The facts equal those of a slow twin, which counts in Python, for any blocks."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.ragged import offsets_of
from data.sequences import Targets
from experiments.inspection.blocks import blocks
from experiments.inspection.counting import MagnitudeCounts, ValueCounts, spread_of
from experiments.inspection.popularity import popularity_facts
from experiments.inspection.sequence_pass import sequence_pass

NUM_ITEMS = 7
SECONDS = 1_500_000_000
PERCENTS = {"p25": 25, "median": 50, "p75": 75, "p90": 90, "p99": 99}


def twin_spread(values):
    ordered = sorted(values)
    found = {name: ordered[math.ceil(len(ordered) * percent / 100) - 1] for name, percent in PERCENTS.items()}
    return found | {"least": ordered[0], "most": ordered[-1], "mean": sum(ordered) / len(ordered)}


@st.composite
def sequences(draw):
    """A dataset in memory: histories, times that ascend within a user, and any split."""
    histories = draw(st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=12), min_size=1, max_size=8))
    moments = st.one_of(st.integers(SECONDS, SECONDS + 10**7), st.integers(-(2**62), 2**62), st.just(SECONDS * 1000))
    times = [sorted(draw(st.lists(moments, min_size=len(one), max_size=len(one)))) for one in histories]
    ends = [sorted(draw(st.tuples(*[st.integers(0, len(one))] * 2))) for one in histories]
    offsets = offsets_of(np.array([len(one) for one in histories]))
    return SimpleNamespace(
        histories=histories,
        times=times,
        ends=ends,
        num_items=NUM_ITEMS,
        num_users=len(histories),
        num_interactions=int(offsets[-1]),
        offsets=offsets,
        items=np.array(list(itertools.chain(*histories))),
        timestamps=np.array(list(itertools.chain(*times))),
        train_end=np.array([train for train, _ in ends]),
        valid_end=np.array([valid for _, valid in ends]),
        manifest={"split": {"method": "leave-one-out"}},
    )


def trained(data):
    counts = Counter(itertools.chain(*(one[:end] for one, (end, _) in zip(data.histories, data.ends, strict=True))))
    return np.array([counts[item] for item in range(NUM_ITEMS)])


@settings(deadline=None, max_examples=60)
@given(sequences(), st.integers(1, 9))
def test_sequences(data, size):
    popularity = trained(data)
    found = sequence_pass(data, popularity, size)
    history, repeats, split = found.history_facts(), found.repeat_facts(), found.split_facts()
    lengths = [len(one) for one in data.histories]
    assert vars(history.lengths) == pytest.approx(twin_spread(lengths))
    assert sum(bar.count for bar in history.bars) == len(lengths)
    assert history.num_short == sum(length < 3 for length in lengths)
    assert history.num_at_longest == lengths.count(max(lengths))
    assert repeats.num_repeats == sum(len(one) - len(set(one)) for one in data.histories)
    assert repeats.num_in_a_row == sum(a == b for one in data.histories for a, b in itertools.pairwise(one))
    assert {name: getattr(split, name) for name in ("train", "valid", "test")} == {
        name: len(Targets(data, name)) for name in ("train", "valid", "test")
    }
    tests = [
        (one[place], times[place])
        for one, times, (_, end) in zip(data.histories, data.times, data.ends, strict=True)
        for place in range(max(1, end), len(one))
    ]
    assert split.untrained_test == sum(popularity[item] == 0 for item, _ in tests)
    check_times(data, found.time_facts(), [time for _, time in tests])


def check_times(data, found, tested):
    every = list(itertools.chain(*data.times))
    gaps = [b - a for times in data.times for a, b in itertools.pairwise(times)]
    training = [time for times, (end, _) in zip(data.times, data.ends, strict=True) for time in times[:end]]
    latest = max(training, default=None)
    several = [times for times in data.times if len(times) > 1]
    assert (found.first, found.last, found.last_training) == (min(every), max(every), latest)
    assert (found.num_gaps, found.num_equal) == (len(gaps), gaps.count(0))
    assert found.num_users_with_gaps == len(several)
    assert found.num_users_at_once == sum(times[0] == times[-1] for times in several)
    assert found.num_test_before == (0 if latest is None else sum(time < latest for time in tested))
    assert sum(bar.count for bar in found.bars) + found.num_outside == len(every)
    in_seconds = sum(315_532_800 <= time < 4_102_444_800 for time in every)
    assert found.by_magnitude["s"] == in_seconds
    assert sum(found.by_magnitude.values()) == len(every)
    assert (found.unit == "s") == (2 * in_seconds > len(every))
    if gaps:
        twin = twin_spread(gaps)
        for name in ("least", *PERCENTS, "most"):
            assert twin[name] * 0.98 <= getattr(found.gaps, name) <= twin[name] * (1 + 1e-12)


@settings(deadline=None, max_examples=30)
@given(sequences(), st.integers(1, 9))
def test_blocks_are_small_and_cover_everything_once(data, size):
    covered = 0
    for block in blocks(data.offsets, size):
        assert block.start == covered
        assert block.stop - block.start <= size
        assert data.offsets[block.first] <= block.start < block.stop <= data.offsets[block.last]
        covered = block.stop
    assert covered == data.num_interactions


@given(st.lists(st.integers(0, 30), min_size=1, max_size=250))
def test_popularity(counts):
    found = popularity_facts(np.array(counts))
    total = sum(counts)
    apart = sum(abs(a - b) for a in counts for b in counts)
    assert found.gini == pytest.approx(apart / (2 * len(counts) * total) if total else 0, abs=1e-9)
    ordered = sorted(counts, reverse=True)
    assert found.top_share == pytest.approx(sum(ordered[: max(1, len(counts) // 100)]) / total if total else 0)
    assert found.num_untrained == counts.count(0)
    assert vars(found.counts) == pytest.approx(twin_spread(counts))
    assert all(ordered[rank - 1] == count for rank, count in found.curve)
    assert (found.curve[0][0], found.curve[-1][0]) == (1, len(counts))


@given(st.lists(st.lists(st.integers(0, 500), min_size=1, max_size=9), min_size=1, max_size=6))
def test_counts_of_blocks_are_those_of_all_values(parts):
    exact, rough = ValueCounts(), MagnitudeCounts()
    for part in parts:
        exact.add(np.array(part))
        rough.add(np.array(part, np.float64))
    every = list(itertools.chain(*parts))
    twin = twin_spread(every)
    assert vars(exact.spread()) == pytest.approx(twin)
    assert vars(spread_of(np.sort(every))) == pytest.approx(twin)
    for name, value in vars(rough.spread()).items():
        assert twin[name] * 0.98 <= value <= twin[name] * (1 + 1e-12)
    assert MagnitudeCounts().spread() is None


def test_norms_are_told_within_two_percent():
    values = np.random.default_rng(0).lognormal(sigma=4, size=5000)
    rough = MagnitudeCounts()
    rough.add(values)
    for name, value in twin_spread(values.tolist()).items():
        assert value * 0.98 <= getattr(rough.spread(), name) <= value * (1 + 1e-9)


@pytest.mark.parametrize(
    ("times", "stated", "period", "first", "num_bars", "outside"),
    [
        ([SECONDS, SECONDS + 86_400 * 3], None, "day", "2017-07-14", 4, 0),
        ([SECONDS, SECONDS + 86_400 * 300], None, "month", "2017-07", 11, 0),
        ([SECONDS - 86_400 * 4000, SECONDS], None, "year", "2006", 12, 0),
        ([SECONDS * 10**9, SECONDS * 10**9 + 1], None, "day", "2017-07-14", 1, 0),
        ([0, *[SECONDS] * 150, SECONDS * 1000], None, "day", "2017-07-14", 1, 2),
        ([-(10**9), SECONDS], "s", "year", "1938", 80, 0),  # dates before 1980 are drawn if they are not few
        ([-(10**9), *[SECONDS] * 150], "s", "day", "2017-07-14", 1, 1),
        ([0, 79], None, "part", "0", 40, 0),
        ([-(2**63), 2**63 - 2], "s", "year", None, None, 2),
        ([5], None, "part", "5", 1, 0),
    ],
)
def test_periods(times, stated, period, first, num_bars, outside):
    data = SimpleNamespace(
        num_items=1,
        num_users=1,
        num_interactions=len(times),
        offsets=np.array([0, len(times)]),
        items=np.zeros(len(times), np.int64),
        timestamps=np.array(times),
        train_end=np.array([len(times)]),
        valid_end=np.array([len(times)]),
        manifest={"source": {"timestamp_unit": stated}},
    )
    found = sequence_pass(data, np.array([len(times)])).time_facts()
    assert sum(bar.count for bar in found.bars) + found.num_outside == len(times)
    if first is not None:
        assert (found.period, found.bars[0].label, len(found.bars)) == (period, first, num_bars)
        assert found.num_outside == outside

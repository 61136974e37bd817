"""Candidates of a sampled softmax: drawn as stated, weighted so that sums over them are unbiased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from data import negatives
from data.negatives import CandidateSampler, target_counts
from data.order import shuffled
from data.sequences import Targets
from tests.sequences import Sequences

COUNTS = np.array([0, 1, 7, 0, 30, 2, 2, 11, 1, 0])
NO_TARGETS = np.empty(0, np.int64)


def mixture(counts: np.ndarray, share: float, power: float) -> np.ndarray:
    """The mixture item by item, from its definition."""
    popularity = np.array([float(count) ** power if count else 0.0 for count in counts])
    return (1 - share) / len(counts) + share * popularity / popularity.sum()


class HugeCounts(np.ndarray):
    """A count of 1 for each of 2^31 + 2^20 items, which share one number in memory."""

    def __new__(cls) -> HugeCounts:
        return np.broadcast_to(np.int64(1), 2**31 + 2**20).view(cls)

    def sum(self, *_: object, **__: object) -> int:  # type: ignore[override]
        return len(self)


class Edges(np.random.Generator):
    """The uniform numbers where inversion is delicate: the ends of the range and a boundary between items."""

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.array([0.0, 0.25, 1 - 2.0**-53])[:size]


@settings(max_examples=60, deadline=None)
@given(lists=st.lists(st.lists(st.integers(0, 6), max_size=6), max_size=6), draw=st.data(), chunk=st.integers(1, 9))
def test_counts_are_those_of_a_loop(lists: list[list[int]], draw: st.DataObject, chunk: int) -> None:
    train_end = [draw.draw(st.integers(0, len(row))) for row in lists]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    items = np.array([item for row in lists for item in row], dtype=np.int64)
    data = Sequences(8, len(lists), offsets, items, np.array(train_end, int), np.array(list(map(len, lists)), int))
    expected = [sum(row[1:end].count(item) for row, end in zip(lists, train_end, strict=True)) for item in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negatives, "_CHUNK", chunk)
        counts = target_counts(data, Targets(data, "train"))
    assert counts.tolist() == expected
    assert counts.dtype == np.int64


def test_ranks_agree_and_steps_and_epochs_and_seeds_differ() -> None:
    batch = np.array([4, 4, 7, 1])

    def ids(seed: int, epoch: int, step: int, order: np.ndarray = batch) -> list[list[float]]:
        sampler = CandidateSampler(np.ones(10**6, np.int64), 64, 0.5, 0.5, True, seed)
        return [part.tolist() for part in sampler.sample(epoch, step, order)]

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert ids(0, 1, 0) == ids(0, 1, 0) == ids(0, 1, 0, batch[::-1])
    assert len({str(ids(*key)) for key in keys}) == len(keys)


@pytest.mark.parametrize(("share", "power"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (1.0, 0.5), (0.3, 0.75)])
def test_draws_follow_the_mixture(share: float, power: float) -> None:
    num_draws = 200_000
    sampler = CandidateSampler(COUNTS, num_draws, share, power, False, 3)
    ids, log_weights = sampler.sample(0, 0, NO_TARGETS)
    m = mixture(COUNTS, share, power)
    assert ids.tolist() == np.flatnonzero(m).tolist()
    times = np.exp(log_weights.astype(float)) * num_draws * m[ids]  # undoes the weight, so a wrong one shows too
    np.testing.assert_allclose(times, np.rint(times), atol=0.05)
    assert np.rint(times).sum() == num_draws
    assert chisquare(np.rint(times), num_draws * m[ids]).pvalue > 1e-3


@pytest.mark.parametrize("scale", [1, 3, 2**40 + 1])
def test_boundaries_belong_to_the_next_item_with_targets(scale: int) -> None:
    sampler = CandidateSampler(np.array([0, 0, 1, 0, 2, 1, 0, 0]) * scale, 3, 1.0, 1.0, False, 0)
    assert sampler._draw_popular(Edges(np.random.PCG64(0)), 3).tolist() == [2, 4, 5]


@pytest.mark.parametrize(
    ("num_draws", "share", "power", "in_batch"),
    [(0, 0.5, 0.5, True), (6, 0.5, 0.5, True), (6, 0.5, 1.0, False), (6, 1.0, 0.75, True)],
)
def test_sums_over_the_other_items_are_unbiased(num_draws: int, share: float, power: float, in_batch: bool) -> None:
    """Over batches cut from a finite list, as training cuts them, for the row in each batch's first slot."""
    counts = np.array([0, 1, 4, 0, 2, 3, 2])
    target_list = np.repeat(np.arange(len(counts)), counts)  # 12 targets: T - 1 and T differ by 9%
    values = np.random.default_rng(0).uniform(0.5, 2, len(counts))
    sampler = CandidateSampler(counts, num_draws, share, power, in_batch, 0)
    reached = (counts > 0) | ((num_draws > 0) and share < 1)
    estimates: dict[int, list[float]] = {int(target): [] for target in np.flatnonzero(counts)}
    for step in range(5_000):
        batch = target_list[shuffled(np.arange(5), len(target_list), 11, step)]
        ids, log_weights = sampler.sample(0, step, batch)
        others = ids != batch[0]
        estimates[int(batch[0])].append(float((np.exp(log_weights) * values[ids])[others].sum()))
    for target, sums in estimates.items():
        truth = values[reached].sum() - values[target]
        assert abs(np.mean(sums) - truth) < 4 * np.std(sums) / np.sqrt(len(sums)), target


def test_times_are_merged_over_draws_and_batch() -> None:
    sampler = CandidateSampler(np.array([3, 5]), 100, 0.5, 1.0, True, 0)
    ids, log_weights = sampler.sample(0, 0, np.array([1, 1, 0, 1]))
    expected = 100 * mixture(np.array([3, 5]), 0.5, 1.0) + 3 * np.array([3, 5]) / 7
    times = np.exp(log_weights.astype(float)) * expected
    assert ids.tolist() == [0, 1]
    np.testing.assert_allclose(times, np.rint(times), atol=1e-4)
    assert np.rint(times).sum() == 104


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any),
    num_draws=st.integers(0, 40),
    share=st.sampled_from([0.0, 0.25, 1.0]),
    power=st.sampled_from([0.0, 0.5, 1.0]),
    in_batch=st.booleans(),
    draw=st.data(),
)
def test_results_have_their_shapes_whatever_the_catalogue(
    counts: list[int], num_draws: int, share: float, power: float, in_batch: bool, draw: st.DataObject
) -> None:
    target_list = np.repeat(np.arange(len(counts)), counts)
    batch = target_list[: draw.draw(st.integers(1, len(target_list)))]
    ids, log_weights = CandidateSampler(np.array(counts), num_draws, share, power, in_batch, 1).sample(2, 3, batch)
    assert (ids.dtype, log_weights.dtype) == (np.int64, np.float32)
    assert ids.shape == log_weights.shape
    assert (np.diff(ids) > 0).all()
    assert set(ids.tolist()) <= set(range(len(counts)))
    assert np.isfinite(log_weights).all()
    if in_batch and len(batch) > 1:
        assert set(batch.tolist()) <= set(ids.tolist())
    if share == 1 or not num_draws:
        assert (np.array(counts)[ids] > 0).all()


def test_one_target_is_nobodys_negative() -> None:
    batch = np.array([1])
    for num_draws in (0, 4):
        ids, log_weights = CandidateSampler(np.array([0, 1]), num_draws, 0.0, 1.0, True, 0).sample(0, 0, batch)
        drawn = CandidateSampler(None, num_draws, 0.0, 1.0, False, 0, num_items=2).sample(0, 0, batch)
        assert ids.tolist() == drawn[0].tolist()
        assert log_weights.tolist() == drawn[1].tolist()
    assert len(CandidateSampler(COUNTS, 0, 0.0, 1.0, False, 0).sample(0, 0, np.array([4, 4]))[0]) == 0


def test_ids_are_exact_above_32_and_24_bits() -> None:
    huge = HugeCounts()
    batch = np.array([2**31 + 1, 2**31 + 2**20 - 1, 2**24 + 1])
    ids, log_weights = CandidateSampler(huge, 0, 0.0, 1.0, True, 0).sample(0, 0, batch)
    assert ids.tolist() == sorted(batch.tolist())
    np.testing.assert_allclose(log_weights, np.log((len(huge) - 1) / 2), rtol=1e-6)
    drawn, _ = CandidateSampler(None, 20_000, 0.0, 1.0, False, 0, num_items=len(huge)).sample(0, 0, NO_TARGETS)
    assert drawn.min() >= 0
    assert 2**31 < drawn.max() < len(huge)
    assert (drawn[drawn > 2**24] % 2).mean() == pytest.approx(0.5, abs=0.02)  # float32 would make them even


def test_popular_ids_are_exact_above_24_bits() -> None:
    counts = np.zeros(2**24 + 9, np.int64)
    counts[-9:] = 3
    ids, log_weights = CandidateSampler(counts, 9_000, 1.0, 0.5, False, 0).sample(0, 0, NO_TARGETS)
    assert ids.tolist() == list(range(2**24, 2**24 + 9))
    np.testing.assert_allclose(log_weights, 0, atol=0.2)

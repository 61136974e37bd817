"""Candidates of a sampled softmax: drawn as stated, weighted so that sums over them are unbiased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc

from contracts.errors import InputError
from data.sampling import negatives
from data.sampling.negatives import CandidateSampler, target_counts
from data.sampling.order import shuffled
from data.sequences import Targets, target_items
from tests.sequences import Sequences

COUNTS = np.array([0, 1, 7, 0, 30, 2, 2, 11, 1, 0])
NO_TARGETS = np.empty(0, np.int64)
# Neighbours of 7 items in two modalities: themselves, pads anywhere, a row of pads only, one item twice.
LINKS = (
    np.array([[0, 3, 1], [1, 4, -1], [2, -1, 5], [3, 3, 3], [-1, -1, -1], [6, 6, 2], [0, 1, 2]]),
    np.array([[5, 5], [2, -1], [0, 6], [-1, 4], [4, 2], [-1, -1], [6, 3]]),
)


def mixture(counts: np.ndarray, share: float, power: float) -> np.ndarray:
    """The mixture item by item, from its definition."""
    popularity = np.array([float(count) ** power if count else 0.0 for count in counts])
    return (1 - share) / len(counts) + share * popularity / popularity.sum()


def neighbor_chances(targets: np.ndarray, num_items: int = 7) -> np.ndarray:
    """Of each item to be a hard draw, from the definition."""
    pairs = [[j for j in links[t] if j not in (-1, t)] for links in LINKS for t in targets]
    pairs = [pair for pair in pairs if pair]
    chances = np.zeros(num_items)
    for pair in pairs:
        for item in pair:
            chances[item] += 1 / len(pair) / len(pairs)
    return chances


def chance_of(observed: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's chi-squared test. scipy.stats has it too, and takes a second to import."""
    return float(chdtrc(len(observed) - 1, ((observed - expected) ** 2 / expected).sum()))


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
        patch.setattr(negatives, "_USERS", chunk)
        counts = target_counts(data, data.popularity())
    assert counts.tolist() == expected
    assert counts.dtype == np.int64
    targets = Targets(data, "train")
    listed = target_items(data, *targets.locate(np.arange(len(targets))))
    assert counts.tolist() == np.bincount(listed, minlength=8).tolist()


@pytest.mark.parametrize("popularity", [[1, 1, 2], [0, 3, 0]])
def test_a_popularity_of_other_sequences_is_refused(popularity: list[int]) -> None:
    three = np.array([3])
    data = Sequences(3, 1, np.array([0, 3]), np.array([0, 1, 1]), three, three)
    assert target_counts(data, np.array([1, 2, 0])).tolist() == [0, 2, 0]
    with pytest.raises(InputError, match=r"popularity.*prepare the dataset again"):
        target_counts(data, np.array(popularity))


def test_ranks_agree_and_steps_and_epochs_and_seeds_differ() -> None:
    batch = np.array([4, 4, 7, 1])

    def ids(seed: int, epoch: int, step: int, order: np.ndarray = batch) -> list[list[float]]:
        sampler = CandidateSampler(
            counts=np.ones(10**6, np.int64),
            num_draws=64,
            popularity_share=0.5,
            popularity_power=0.5,
            in_batch=True,
            seed=seed,
        )
        return [part.tolist() for part in sampler.sample(epoch, step, order)]

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert ids(0, 1, 0) == ids(0, 1, 0) == ids(0, 1, 0, batch[::-1])
    assert len({str(ids(*key)) for key in keys}) == len(keys)


@pytest.mark.parametrize(("share", "power"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (1.0, 0.5), (0.3, 0.75)])
def test_draws_follow_the_mixture(share: float, power: float) -> None:
    num_draws = 200_000
    sampler = CandidateSampler(
        counts=COUNTS, num_draws=num_draws, popularity_share=share, popularity_power=power, in_batch=False, seed=3
    )
    ids, log_weights = sampler.sample(0, 0, NO_TARGETS)
    m = mixture(COUNTS, share, power)
    assert ids.tolist() == np.flatnonzero(m).tolist()
    times = np.exp(log_weights.astype(float)) * num_draws * m[ids]  # undoes the weight, so a wrong one shows too
    np.testing.assert_allclose(times, np.rint(times), atol=0.05)
    assert np.rint(times).sum() == num_draws
    assert chance_of(np.rint(times), num_draws * m[ids]) > 1e-3


@pytest.mark.parametrize("hard", [0.2, 0.9])
def test_hard_draws_are_neighbours_of_the_batch(hard: float) -> None:
    num_draws, batch = 100_000, np.array([3, 2, 2, 0, 4])
    counts = np.array([1, 0, 2, 1, 3, 0, 0])
    sampler = CandidateSampler(
        counts=counts,
        num_draws=num_draws,
        popularity_share=1.0,
        popularity_power=1.0,
        in_batch=False,
        seed=3,
        hard_share=hard,
        neighbors=LINKS,
    )
    ids, log_weights = sampler.sample(0, 0, batch)
    expected = num_draws * ((1 - hard) * counts / counts.sum() + hard * neighbor_chances(batch))
    assert ids.tolist() == np.flatnonzero(expected).tolist()
    assert 5 in ids, "an item that is never a target, and a neighbour of one"
    times = np.exp(log_weights.astype(float)) * expected[ids]
    np.testing.assert_allclose(times, np.rint(times), atol=0.05)
    assert np.rint(times).sum() == num_draws
    assert chance_of(np.rint(times), expected[ids]) > 1e-3


def test_hard_draws_do_not_depend_on_the_order_of_the_batch() -> None:
    batch = np.array([3, 2, 2, 0, 6, 4, 1, 5])

    def parts(order: np.ndarray, hard: float = 0.5, links: tuple[np.ndarray, ...] = LINKS) -> list[list[float]]:
        sampler = CandidateSampler(
            counts=np.arange(1, 8),
            num_draws=9,
            popularity_share=0.5,
            popularity_power=0.5,
            in_batch=True,
            seed=0,
            hard_share=hard,
            neighbors=links,
        )
        return [part.tolist() for part in sampler.sample(0, 0, order)]

    shuffles = [np.random.default_rng(seed).permutation(batch) for seed in range(20)]
    assert all(parts(order) == parts(batch) for order in shuffles)
    assert parts(batch, hard=0.0) == parts(batch, hard=0.0, links=()) != parts(batch)


def test_targets_without_neighbours_leave_the_other_draws() -> None:
    alone = (np.array([[0, -1], [-1, -1]]),)
    sampler = CandidateSampler(
        counts=None,
        num_draws=1000,
        popularity_share=0.0,
        popularity_power=1.0,
        in_batch=False,
        seed=0,
        num_items=2,
        hard_share=0.5,
        neighbors=alone,
    )
    ids, log_weights = sampler.sample(0, 0, np.array([0, 1, 1]))
    times = np.exp(log_weights.astype(float)) * 250  # 1000 draws, half of them plain, over two items
    np.testing.assert_allclose(times, np.rint(times), atol=1e-3)
    assert ids.tolist() == [0, 1]
    assert 400 < times.sum() < 600


@pytest.mark.parametrize("scale", [1, 3, 2**40 + 1])
def test_boundaries_belong_to_the_next_item_with_targets(scale: int) -> None:
    sampler = CandidateSampler(
        counts=np.array([0, 0, 1, 0, 2, 1, 0, 0]) * scale,
        num_draws=3,
        popularity_share=1.0,
        popularity_power=1.0,
        in_batch=False,
        seed=0,
    )
    assert sampler._draw_popular(Edges(np.random.PCG64(0)), 3).tolist() == [2, 4, 5]


@pytest.mark.long
@pytest.mark.parametrize(
    ("num_draws", "share", "power", "in_batch", "hard"),
    [
        (0, 0.5, 0.5, True, 0.0),
        (6, 0.5, 0.5, True, 0.0),
        (6, 0.5, 1.0, False, 0.0),
        (6, 1.0, 0.75, True, 0.0),
        (6, 0.5, 0.5, True, 0.5),
        (6, 0.5, 0.5, False, 0.3),
        (3, 0.0, 0.5, True, 0.8),
    ],
)
def test_sums_over_the_other_items_are_unbiased(
    num_draws: int, share: float, power: float, in_batch: bool, hard: float
) -> None:
    """Over batches cut from a finite list, as training cuts them, for the row in each batch's first slot."""
    counts = np.array([0, 1, 4, 0, 2, 3, 2])
    target_list = np.repeat(np.arange(len(counts)), counts)  # 12 targets: T - 1 and T differ by 9%
    values = np.random.default_rng(0).uniform(0.5, 2, len(counts))
    sampler = CandidateSampler(
        counts=counts,
        num_draws=num_draws,
        popularity_share=share,
        popularity_power=power,
        in_batch=in_batch,
        seed=0,
        hard_share=hard,
        neighbors=LINKS,
    )
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


@pytest.mark.long
@pytest.mark.parametrize(("num_draws", "hard"), [(0, 0.0), (6, 0.0), (6, 0.5)])
@pytest.mark.parametrize("size", [1, 3])
def test_sums_are_unbiased_for_rows_trained_with_others(num_draws: int, hard: float, size: int) -> None:
    """Over batches of spans: the other targets of a row's span weigh 1, everything else its candidates' weight."""
    spans = [np.array(span) for span in ([1, 2], [4, 5, 5], [2], [5, 2, 2, 6], [4], [6])]
    counts = np.bincount(np.concatenate(spans), minlength=7)
    values = np.random.default_rng(0).uniform(0.5, 2, len(counts))
    sampler = CandidateSampler(
        counts=counts,
        num_draws=num_draws,
        popularity_share=0.5,
        popularity_power=0.5,
        in_batch=True,
        seed=0,
        hard_share=hard,
        neighbors=LINKS,
    )
    others = (size - 1) / (len(spans) - 1)
    estimates: list[list[float]] = [[] for _ in spans]
    outside_of = [~np.isin(np.arange(7), span) for span in spans]
    for step in range(8_000):
        chosen = shuffled(np.arange(size), len(spans), 11, step)
        ids, log_weights = sampler.sample(0, step, np.concatenate([spans[n] for n in chosen]), others)
        assert np.isfinite(log_weights).all()
        alone = size == 1 and len(spans[chosen[0]]) == 1
        assert alone or set(spans[chosen[0]]) <= set(ids), "the loss needs a column for each"
        outside = outside_of[chosen[0]][ids]
        estimates[chosen[0]].append(float((np.exp(log_weights) * values[ids])[outside].sum()))
    reached = (counts > 0) & (size > 1) | (num_draws > 0)
    for span, outside, sums in zip(spans, outside_of, estimates, strict=True):
        truth = values[reached & outside].sum()
        assert abs(np.mean(sums) - truth) <= 4 * np.std(sums) / np.sqrt(len(sums)) + 1e-9, span


def test_times_are_merged_over_draws_and_batch() -> None:
    sampler = CandidateSampler(
        counts=np.array([3, 5]), num_draws=100, popularity_share=0.5, popularity_power=1.0, in_batch=True, seed=0
    )
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
    hard=st.sampled_from([0.0, 0.4]),
    draw=st.data(),
)
def test_results_have_their_shapes_whatever_the_catalogue(
    counts: list[int], num_draws: int, share: float, power: float, in_batch: bool, hard: float, draw: st.DataObject
) -> None:
    target_list = np.repeat(np.arange(len(counts)), counts)
    batch = target_list[: draw.draw(st.integers(1, len(target_list)))]
    links = np.random.default_rng(len(batch)).integers(-1, len(counts), (len(counts), 3))
    sampler = CandidateSampler(
        counts=np.array(counts),
        num_draws=num_draws,
        popularity_share=share,
        popularity_power=power,
        in_batch=in_batch,
        seed=1,
        hard_share=hard,
        neighbors=[links],
    )
    ids, log_weights = sampler.sample(2, 3, batch)
    assert (ids.dtype, log_weights.dtype) == (np.int64, np.float32)
    assert ids.shape == log_weights.shape
    assert (np.diff(ids) > 0).all()
    assert set(ids.tolist()) <= set(range(len(counts)))
    assert np.isfinite(log_weights).all()
    if in_batch and len(batch) > 1:
        assert set(batch.tolist()) <= set(ids.tolist())
    if (share == 1 and not hard) or not num_draws:
        assert (np.array(counts)[ids] > 0).all()


def test_one_target_is_nobodys_negative() -> None:
    batch = np.array([1])
    for num_draws in (0, 4):
        ids, log_weights = CandidateSampler(
            counts=np.array([0, 1]),
            num_draws=num_draws,
            popularity_share=0.0,
            popularity_power=1.0,
            in_batch=True,
            seed=0,
        ).sample(0, 0, batch)
        drawn = CandidateSampler(
            counts=None,
            num_draws=num_draws,
            popularity_share=0.0,
            popularity_power=1.0,
            in_batch=False,
            seed=0,
            num_items=2,
        ).sample(0, 0, batch)
        assert ids.tolist() == drawn[0].tolist()
        assert log_weights.tolist() == drawn[1].tolist()
    assert (
        len(
            CandidateSampler(
                counts=COUNTS, num_draws=0, popularity_share=0.0, popularity_power=1.0, in_batch=False, seed=0
            ).sample(0, 0, np.array([4, 4]))[0]
        )
        == 0
    )


def test_ids_are_exact_above_32_and_24_bits() -> None:
    huge = HugeCounts()
    batch = np.array([2**31 + 1, 2**31 + 2**20 - 1, 2**24 + 1])
    ids, log_weights = CandidateSampler(
        counts=huge, num_draws=0, popularity_share=0.0, popularity_power=1.0, in_batch=True, seed=0
    ).sample(0, 0, batch)
    assert ids.tolist() == sorted(batch.tolist())
    np.testing.assert_allclose(log_weights, np.log((len(huge) - 1) / 2), rtol=1e-6)
    drawn, _ = CandidateSampler(
        counts=None,
        num_draws=20_000,
        popularity_share=0.0,
        popularity_power=1.0,
        in_batch=False,
        seed=0,
        num_items=len(huge),
    ).sample(0, 0, NO_TARGETS)
    assert drawn.min() >= 0
    assert 2**31 < drawn.max() < len(huge)
    assert (drawn[drawn > 2**24] % 2).mean() == pytest.approx(0.5, abs=0.02)  # float32 would make them even


def test_popular_ids_are_exact_above_24_bits() -> None:
    counts = np.zeros(2**24 + 9, np.int64)
    counts[-9:] = 3
    ids, log_weights = CandidateSampler(
        counts=counts, num_draws=9_000, popularity_share=1.0, popularity_power=0.5, in_batch=False, seed=0
    ).sample(0, 0, NO_TARGETS)
    assert ids.tolist() == list(range(2**24, 2**24 + 9))
    np.testing.assert_allclose(log_weights, 0, atol=0.2)

"""Paired comparisons: exact differences, intervals against plain resampling and their coverage, Holm's correction."""

import numpy as np
import pytest

from evaluation import paired
from evaluation.metrics import ranking_metrics
from evaluation.paired import PairedChunk, compare, holm, metric_values, pair_users

METRICS = ("recall@10", "ndcg@10")


def users_of(baseline, other, begins=None, size=1000, metrics=METRICS):
    """Pair ranks [S, n], in chunks of `size` targets. Without `begins`, each user has one target."""
    count = baseline.shape[1]
    begins = np.ones(count, dtype=bool) if begins is None else begins
    parts = [slice(first, first + size) for first in range(0, count, size)]
    return pair_users(
        (PairedChunk(begins_user=begins[part], baseline=baseline[:, part], other=other[:, part]) for part in parts),
        metrics,
    )


def some_ranks(seed=0, num_seeds=3, count=400):
    random = np.random.default_rng(seed)
    hit, far = random.integers(1, 14, (num_seeds, count)), random.integers(11, 5000, (num_seeds, count))
    return np.where(random.random(count) < 0.3, hit, far)


def test_identical_ranks_differ_by_nothing_with_certainty():
    ranks = some_ranks()
    for found in compare(users_of(ranks, ranks.copy()), samples=500):
        assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
        assert found.baseline == found.other > 0


def test_means_are_those_of_the_metrics():
    baseline, other = some_ranks(0), some_ranks(1)
    for found in compare(users_of(baseline, other), samples=50):
        own, theirs = ([ranking_metrics(ranks, (10,))[found.metric] for ranks in x] for x in (other, baseline))
        assert found.other == pytest.approx(np.mean(own), abs=1e-12)
        assert found.baseline == pytest.approx(np.mean(theirs), abs=1e-12)
        assert found.difference == pytest.approx(np.mean(own) - np.mean(theirs), abs=1e-12)


def test_a_known_difference_lies_in_its_interval_and_a_large_one_is_certain():
    # Of 1,000 users, 100 gain a hit and 40 lose one, with every seed: the difference in recall is .06 exactly.
    baseline, other = np.full((3, 1000), 11), np.full((3, 1000), 11)
    other[:, :100], baseline[:, 100:140] = 1, 10
    (found,) = compare(users_of(baseline, other, metrics=("recall@10",)))
    assert found.difference == pytest.approx(0.06, abs=1e-12)
    # The variance of a user's difference is .14 - .06^2, and with equal seeds only users vary.
    reach = 1.96 * ((0.14 - 0.06**2) / 1000) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.06 - reach, 0.06 + reach), abs=0.002)
    assert found.p == pytest.approx(2 / 5001)


def test_a_difference_as_likely_up_as_down_is_not_significant():
    baseline, other = np.full((1, 200), 11), np.full((1, 200), 11)
    other[:, :20], baseline[:, 20:40] = 3, 3
    (found,) = compare(users_of(baseline, other, metrics=("ndcg@10",)))
    assert found.difference == 0
    assert found.low == pytest.approx(-found.high, rel=0.15)
    assert found.p > 0.9


def test_samples_are_those_of_drawing_seeds_and_users_one_by_one():
    baseline, other = some_ranks(2, count=150), some_ranks(3, count=150)
    values = metric_values(("ndcg@10",))[0]
    differences = values[np.minimum(other, 11) - 1] - values[np.minimum(baseline, 11) - 1]
    random = np.random.default_rng(5)
    plain = [
        differences[random.integers(0, 3, 3)][:, random.integers(0, 150, 150)].mean() for _ in range(4000)
    ]  # the same users for all drawn seeds
    (found,) = compare(users_of(baseline, other, metrics=("ndcg@10",)), samples=4000)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(plain, [2.5, 97.5])), abs=0.004)
    less = min(np.mean(np.array(plain) <= 0), np.mean(np.array(plain) >= 0))
    assert found.p == pytest.approx(2 * less, abs=0.04)


def test_users_with_several_targets_are_drawn_whole():
    # 50 users with four targets each, all alike within a user: as uncertain as 50 targets, not as 200.
    hits = np.where(np.random.default_rng(0).random(50) < 0.4, 1, 11)
    begins = np.tile([True, False, False, False], 50)
    (clustered,) = compare(users_of(np.full((1, 200), 11), np.repeat(hits, 4)[None], begins, 33, ("recall@10",)))
    (single,) = compare(users_of(np.full((1, 50), 11), hits[None], metrics=("recall@10",)))
    assert clustered.difference == single.difference
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high), abs=1e-12)


def test_a_sample_is_the_mean_over_the_targets_of_its_users():
    # One user has three targets, all hits, the other has one miss: drawn users weigh as many targets as they have.
    begins = np.array([True, False, False, True])
    users = users_of(np.full((1, 4), 11), np.array([[1, 1, 1, 11]]), begins, 2, ("recall@10",))
    assert users.num_targets == 4
    (found,) = compare(users, samples=999)
    assert found.difference == 0.75
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_size_of_chunks_changes_nothing(monkeypatch, size):
    baseline, other = some_ranks(4), some_ranks(5)
    begins = np.random.default_rng(1).random(400) < 0.6
    begins[0] = True
    expected = compare(users_of(baseline, other, begins), samples=200)
    monkeypatch.setattr(paired, "_MOST_ROWS", 10)
    monkeypatch.setattr(paired, "_MOST_COUNTS", 3000)
    found = compare(users_of(baseline, other, begins, size), samples=200)
    for one, two in zip(found, expected, strict=True):
        assert one.metric == two.metric
        for name in ("baseline", "other", "difference", "low", "high", "p"):
            assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-12)


def test_the_seed_decides_the_draws():
    users = users_of(some_ranks(4), some_ranks(5))
    assert compare(users, samples=300) == compare(users, samples=300, seed=0)
    assert compare(users, samples=300) != compare(users, samples=300, seed=1)


def test_equal_users_are_counted_together():
    users = users_of(np.full((2, 5000), 400), np.where(np.arange(5000) % 10 == 0, 3, 800)[None].repeat(2, 0), size=600)
    assert users.counts.tolist() == [4500, 500]
    assert users.rows.shape == (2, 1 + 2 * len(METRICS))


def coverage(num_seeds, spread, noise, repetitions=300, num_users=250, seed=0):
    """Return how often the interval of recall@10 holds the true difference, and its mean width.

    A user's target is found by the baseline with probability .4 and by the other system with .5. The share `noise`
    of users is found or not by each training on its own; the others by all trainings of a system alike. With each seed
    the probability .5 becomes another, which differs from it with standard deviation `spread`.
    """
    random = np.random.default_rng(seed)
    held, widths = 0, []
    for _ in range(repetitions):
        alone = random.random(num_users) < noise
        found = []
        for chance in (np.full(num_seeds, 0.4), 0.5 + spread * random.standard_normal(num_seeds)):
            own, common = random.random((num_seeds, num_users)), random.random(num_users)
            found.append(np.where(np.where(alone, own, common) < chance[:, None], 1, 11))
        (result,) = compare(users_of(*found, metrics=("recall@10",)), samples=300, seed=int(random.integers(2**31)))
        held += result.low <= 0.1 <= result.high
        widths.append(result.high - result.low)
    return held / repetitions, float(np.mean(widths))


@pytest.mark.parametrize(
    ("num_seeds", "spread", "noise", "least", "most"),
    [
        (1, 0.0, 1.0, 0.91, 0.98),  # an ordinary paired bootstrap of users
        (3, 0.0, 0.0, 0.91, 0.98),  # equal trainings: only users vary
        (3, 0.0, 1.0, 0.97, 1.0),  # every training finds other users: too wide
        (3, 0.087, 0.5, 0.85, 0.95),  # three seeds say little about the spread of seeds: too narrow
        (1, 0.087, 0.5, 0.5, 0.72),  # one seed says nothing about it
    ],
)
def test_intervals_hold_the_true_difference_as_often_as_docs_say(num_seeds, spread, noise, least, most):
    share, _ = coverage(num_seeds, spread, noise)
    assert least <= share <= most


def test_holm_against_values_computed_by_hand():
    # Sorted: .01 x 4, .02 x 3, .03 x 2 = .06 again, and .2 x 1.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    # .04 x 2 = .08, and .05 x 1 is raised to it.
    assert holm([0.04, 0.05]) == pytest.approx([0.08, 0.08])
    assert holm([0.5, 0.9, 0.4]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([0.3]) == [0.3]
    assert holm([]) == []

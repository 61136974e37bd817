"""Comparisons of runs: which files stand for a run, which may be compared, and pairs by user and seed."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from contracts.errors import InputError
from evaluation import saved_ranks
from evaluation.paired import PairedChunk, compare, pair_users
from experiments.comparison.chosen_groups import chosen_ranks
from experiments.comparison.comparison_table import comparison_table, explanation
from experiments.comparison.paired_runs import System, compare_pair, corrected, shared_seeds
from experiments.comparison.run_ranks import find_ranks, why_not_comparable
from tests.experiments.saved import save_ranks, some_ranks

METRICS = ("recall@10", "ndcg@10")


def system(root, name, hits, seeds, **more):
    for seed in seeds:
        save_ranks(root / f"{name}-{seed}", some_ranks(100 * seed + round(1000 * hits), hits), seed=seed, **more)
    return System(name=name, by_seed={seed: find_ranks(str(root / f"{name}-{seed}"), "test") for seed in seeds})


def test_pairs_are_those_of_the_shared_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_ranks, "ROW_GROUP", 128)
    a, b = system(tmp_path, "a", 0.2, (0, 1, 2)), system(tmp_path, "b", 0.3, (2, 0, 7))
    assert list(shared_seeds(a, b)) == [2, 0]
    ranks = {
        (name, seed): some_ranks(100 * seed + hits, hits / 1000)
        for name, hits in (("a", 200), ("b", 300))
        for seed in (2, 0)
    }
    whole = PairedChunk(
        begins_user=np.ones(300, dtype=bool),
        baseline=np.stack([ranks["a", 2], ranks["a", 0]]),
        other=np.stack([ranks["b", 2], ranks["b", 0]]),
    )
    for found, expected in zip(compare_pair(a, b, METRICS), compare(pair_users([whole], METRICS)), strict=True):
        expected = asdict(expected)
        assert found.metric == expected.pop("metric")
        assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, abs=1e-12)


def test_single_runs_are_a_pair_whatever_their_seeds(tmp_path):
    a, b = system(tmp_path, "a", 0.2, (0,)), system(tmp_path, "b", 0.3, (5,))
    assert list(shared_seeds(a, b)) == [5]
    assert not shared_seeds(system(tmp_path, "c", 0.2, (1, 2)), b)


def test_ranks_of_evaluate_stand_for_those_that_training_did_not_save(tmp_path):
    run = tmp_path / "run"
    save_ranks(run, [1, 2, 3], result="evaluation-best.json")
    (run / "metrics.json").write_text(json.dumps({"best_step": 20}))
    assert find_ranks(str(run), "test").path.name == "evaluation-best-ranks-test.parquet"
    assert find_ranks(str(run), "valid") is None
    (run / "metrics.json").write_text(json.dumps({"best_step": 30}))  # trained further since
    assert find_ranks(str(run), "test") is None
    save_ranks(run, [1, 2, 3], step=30)
    assert find_ranks(str(run), "test").path.name == "ranks-test.parquet"
    (run / "ranks-test.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"ranks-test\.parquet: is not a readable file of ranks"):
        find_ranks(str(run), "test")


def test_a_run_without_the_result_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no metrics\.json; name a run folder whose training .* has ended"):
        find_ranks(str(tmp_path / "none"), "test")
    save_ranks(tmp_path, [1])
    with pytest.raises(InputError, match=r"has no evaluation-best\.json; write it with jobs/evaluate\.py"):
        find_ranks(str(tmp_path), "test", "evaluation-best.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
        find_ranks(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "e"}, "were evaluated on different datasets, with fingerprints d and e"),
        ({"mask_history": True}, "were ranked with different settings, evaluation.mask_history=false and true"),
        ({"ties": "id"}, "were ranked with different settings, evaluation.ties=pessimistic and id"),
        ({"cooccurrence_weight": 1.0}, None),  # a part of the system's own score
        ({"bootstrap_samples": 3}, None),
        ({"seed": 4}, None),
    ],
)
def test_what_must_be_equal(tmp_path, change, reason):
    save_ranks(tmp_path / "a", [1, 2])
    save_ranks(tmp_path / "b", [1, 2], **change)
    one, two = (find_ranks(str(tmp_path / name), "test").facts for name in "ab")
    assert why_not_comparable(one, two) == reason


def test_other_targets_are_refused(tmp_path):
    save_ranks(tmp_path / "a", [1, 2])
    save_ranks(tmp_path / "b", [1, 2], names=["u0", "u9"])
    save_ranks(tmp_path / "c", [1, 2, 3])
    save_ranks(tmp_path / "d", [])
    a, b, c, d = (System(name=n, by_seed={0: find_ranks(str(tmp_path / n), "test")}) for n in "abcd")
    with pytest.raises(InputError, match=r"b/ranks-test.parquet: its targets are not those of .*a/ranks-test\.parquet"):
        compare_pair(a, b, METRICS)
    with pytest.raises(InputError, match=r"c/ranks-test\.parquet: has 3 targets, .* has 2; compare runs"):
        compare_pair(a, c, METRICS)
    with pytest.raises(InputError, match="has 0 targets"):
        compare_pair(d, d, METRICS)


def test_a_file_that_was_written_again_is_read_again(tmp_path):
    a, b = system(tmp_path, "a", 0.2, (0,)), system(tmp_path, "b", 0.3, (0,))
    first = compare_pair(a, b, METRICS)
    assert compare_pair(a, b, METRICS) is first
    save_ranks(tmp_path / "b-0", some_ranks(1, 0.9))
    assert compare_pair(a, b, METRICS)[0].other > first[0].other


def test_p_values_are_corrected_within_each_metric_and_shown(tmp_path):
    a = system(tmp_path, "a", 0.2, (0, 1))
    found = {
        name: ((0, 1), compare_pair(a, system(tmp_path, name, hits, (0, 1)), METRICS))
        for name, hits in (("same", 0.2), ("better", 0.35))
    }
    comparisons = corrected(found, 2)
    assert [(c.system, c.difference.metric) for c in comparisons] == [
        (name, metric) for name in ("same", "better") for metric in METRICS
    ]
    assert comparisons[2].corrected_p == pytest.approx(2 * comparisons[2].difference.p)
    assert comparisons[0].corrected_p == max(comparisons[0].difference.p, comparisons[2].corrected_p)
    table = comparison_table("a", comparisons)
    assert "| 0.0004 " in comparison_table("a", comparisons, "pipe")
    assert len(table.splitlines()) == 6
    better = comparisons[2].difference
    assert f"{better.difference:+.4f}" in table.splitlines()[4]
    assert "one seed" not in (told := explanation("a", comparisons))
    assert "number of systems (2)" in told


def grouped(folder, name, ranks, own):
    """Save ranks of which every third target is cold; `own` are the ranks within groups."""
    labels = np.arange(len(ranks)) % 3 // 2
    save_ranks(folder / name, ranks, groups={"training": ["warm", "cold", "never trained"]}, within=(labels, own))
    return System(name=name, by_seed={0: find_ranks(str(folder / name), "test")})


def test_chosen_targets_and_ranks_are_compared(tmp_path):
    ranks = [some_ranks(seed, hits) for seed, hits in ((0, 0.2), (1, 0.5), (2, 0.3), (3, 0.6))]
    a, b = grouped(tmp_path, "a", *ranks[:2]), grouped(tmp_path, "b", *ranks[2:])
    files = [a.by_seed[0], b.by_seed[0]]
    cold = np.arange(300) % 3 == 2
    for group, among, (one, other), chosen in (
        (None, "all", (ranks[0], ranks[2]), slice(None)),
        (None, "training", (ranks[1], ranks[3]), slice(None)),
        ("cold", "all", (ranks[0], ranks[2]), cold),
        ("cold", "training", (ranks[1], ranks[3]), cold),
    ):
        (recall, _) = compare_pair(a, b, METRICS, chosen_ranks(group, among, files))
        assert recall.baseline == pytest.approx(np.mean(one[chosen] <= 10))
        assert recall.other == pytest.approx(np.mean(other[chosen] <= 10))
        assert recall.low < recall.difference < recall.high


def test_groups_that_a_file_does_not_have_are_refused(tmp_path):
    ranks = some_ranks(0, 0.3)
    a, plain = grouped(tmp_path, "a", ranks, ranks), system(tmp_path, "plain", 0.3, (0,))
    files = [a.by_seed[0], plain.by_seed[0]]
    with pytest.raises(InputError, match=r"--targets cold: .*plain-0/ranks-test\.parquet has no groups of targets"):
        chosen_ranks("cold", "all", files)
    with pytest.raises(InputError, match=r"--among training: .*plain-0/.* has no ranks among the items of its own"):
        chosen_ranks(None, "training", files)
    with pytest.raises(InputError, match=r"--targets new: .* name one of warm, cold, never trained"):
        chosen_ranks("new", "all", files[:1])
    with pytest.raises(InputError, match="has no target of the group 'never trained'"):
        compare_pair(a, a, METRICS, chosen_ranks("never trained", "all", files[:1]))


def test_targets_of_other_groups_are_not_compared(tmp_path):
    """The same targets, but another dataset's groups, so that different rows are chosen."""
    ranks = some_ranks(0, 0.3)
    a = grouped(tmp_path, "a", ranks, ranks)
    for name, labels in (("b", np.arange(300) % 2), ("c", np.arange(300) == 7)):
        groups = {"training": ["warm", "cold"]}
        save_ranks(tmp_path / name, ranks, groups=groups, within=(labels.astype(int), ranks))
        b = System(name=name, by_seed={0: find_ranks(str(tmp_path / name), "test")})
        with pytest.raises(InputError, match="its targets are not those of"):
            compare_pair(a, b, METRICS, chosen_ranks("cold", "all", [a.by_seed[0], b.by_seed[0]]))

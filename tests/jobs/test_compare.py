"""jobs/compare.py: names of systems, their seeds, and the table; its mistakes are in bad_input/compare_cases.py."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from distributed.training.trainer import train
from distributed.world import world_of_one
from jobs import compare
from tests.distributed.runs import config_of
from tests.experiments.saved import save_ranks, some_ranks


def said(*arguments, status=0):
    result = CliRunner().invoke(compare.main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


def rows(output):
    """Return the table's rows, by system and metric."""
    lines = [line.split() for line in output.partition("\n\n")[0].splitlines()]
    found = {}
    for cells in lines[2:]:
        if len(cells) == 11:
            found[cells[0], cells[2]] = dict(
                zip(
                    ("seeds", "metric", "baseline", "own", "difference", "low", "to", "high", "p", "holm"),
                    cells[1:],
                    strict=True,
                )
            )
    return found


@pytest.fixture
def runs(tmp_path):
    """Three runs: c has the ranks of a, b finds 60 further targets of 300."""
    ranks = some_ranks(0, 0.3)
    better = ranks.copy()
    better[np.flatnonzero(ranks == 500)[:60]] = 2
    for name, found, seed in (("a", ranks, 0), ("b", better, 1), ("c", ranks, 2)):
        save_ranks(tmp_path / name, found, seed=seed)
        save_ranks(tmp_path / name, found, seed=seed, split="valid")
    return tmp_path


def test_a_table_of_runs_named_by_their_folders(runs):
    output = said("--runs", runs / "a", runs / "b", runs / "c", "--baseline", "a")
    found = rows(output)
    assert list(found) == [(name, metric) for name in "bc" for metric in ("recall@10", "ndcg@10")]
    better = found["b", "recall@10"]
    assert (better["difference"], better["p"], better["holm"]) == ("+0.2000", "0.0004", "0.0008")
    assert float(better["low"]) < 0.2 < float(better["high"])
    same = found["c", "ndcg@10"]
    assert (same["difference"], same["low"], same["high"], same["p"]) == ("+0.0000", "+0.0000", "+0.0000", "1.0000")
    assert "Ranking of test: items that the user already has are kept" in output
    assert rows(said("--runs", runs / "a", "--runs", runs / "b", runs / "c", "--baseline", f"{runs}/a/")) == found


def test_metrics_and_splits_are_chosen(runs):
    (runs / "b" / "ranks-test.parquet").unlink()
    output = said("--runs", runs / "a", runs / "b", "--baseline", "b", "--split", "valid", "--metric", "recall@1")
    assert list(rows(output)) == [("a", "recall@1")]
    assert "Ranking of valid" in output


def test_runs_with_one_name_are_seeds_of_one_system(runs):
    for name, copy in (("a", "d"), ("b", "e")):
        save_ranks(runs / copy, some_ranks(9, 0.3), seed={"a": 1, "b": 0}[name])
    named = [f"x={runs}/a", f"x={runs}/d", f"y={runs}/b", f"y={runs}/e"]
    found = rows(said("--runs", *named, "--baseline", "x", "--metric", "recall@10"))
    assert found["y", "recall@10"]["seeds"] == "2"


def test_folders_with_an_equals_sign_or_with_the_same_end_are_runs(runs):
    save_ranks(runs / "dim=8-s0", some_ranks(1, 0.3))
    save_ranks(runs / "other" / "a", some_ranks(2, 0.3))
    found = rows(said("--runs", runs / "a", runs / "other/a", runs / "dim=8-s0", "--baseline", "dim=8-s0"))
    assert {name for name, _ in found} == {f"{runs}/a", f"{runs}/other/a"}


def test_other_results_of_the_same_runs(runs):
    name = "evaluation-best-mask_history=true.json"
    for run, seed in (("a", 3), ("b", 4)):
        save_ranks(runs / run, some_ranks(seed, 0.5), result=name, mask_history=True)
    output = said("--runs", runs / "a", runs / "b", "--baseline", "a", "--result", name)
    assert "items that the user already has are hidden" in output


def test_runs_of_training_differ_by_what_their_metrics_do(folders, tmp_path):
    with world_of_one() as world:
        for model, weight in (("popularity", 0), ("itemknn", 1)):
            weight = f"evaluation.cooccurrence_weight={weight}"
            train(config_of(folders, tmp_path / model, model, weight, "evaluation.ks=[10,20]"), world)
    metrics = {
        model: json.loads((tmp_path / model / "metrics.json").read_text()) for model in ("popularity", "itemknn")
    }
    for split in ("valid", "test"):
        arguments = ("--runs", tmp_path / "popularity", tmp_path / "itemknn", "--baseline", "popularity")
        found = rows(said(*arguments, "--split", split, "--metric", "ndcg@20"))["itemknn", "ndcg@20"]
        assert found["baseline"] == f"{metrics['popularity'][split]['ndcg@20']:.4f}"
        assert found["own"] == f"{metrics['itemknn'][split]['ndcg@20']:.4f}"


def test_runs_at_uris_can_be_named():
    given = ["a=s3://bucket/runs/R1", "s3://bucket/runs/x=1"]
    assert [(run.name, run.run) for run in compare._named(given)] == [
        ("a", "s3://bucket/runs/R1"),
        ("x=1", "s3://bucket/runs/x=1"),
    ]

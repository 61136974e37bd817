"""The commands one after another on a real local Ray cluster, from preparing data to recommendations."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data.dataset import Dataset
from evaluation.metrics import ranking_metrics
from jobs import build_graph, evaluate, prepare_data, recommend, train
from tests.distributed.start_runs import same_bytes, weights_at

pytestmark = pytest.mark.ray
SMALL = [
    "--set", "model.dim=8", "--set", "model.num_heads=2", "--set", "model.max_length=10",
    "--set", "training.batch_size=128", "--set", "graph_options.num_centers=4", "--set", "cluster.num_workers=2",
]  # fmt: skip


def invoke(command, *arguments, status=0):
    result = CliRunner().invoke(command.main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def root(tmp_path_factory, shared_ray):  # noqa: ARG001
    """A prepared dataset and its graph."""
    root = tmp_path_factory.mktemp("pipeline")
    made = invoke(
        prepare_data, "--format", "synthetic", "--num-users", 300, "--num-items", 120, "--output", root / "dataset"
    )
    assert f"{root}/dataset" in made.splitlines()[-1]
    folders = ["--set", f"dataset={root}/dataset", "--set", f"graph={root}/graph"]
    built = invoke(build_graph, *folders, *SMALL)
    assert f"{root}/graph" in built.splitlines()[-1]
    return root


def arguments(root, run, *more):
    return [
        "--set",
        f"dataset={root}/dataset",
        "--set",
        f"graph={root}/graph",
        "--set",
        f"run={root}/{run}",
        *SMALL,
        *more,
    ]


def test_train_continue_evaluate_recommend(root):
    first = invoke(train, *arguments(root, "run", "--set", "training.max_epochs=2"))
    assert "recall@10" in first
    steps = [json.loads(line)["step"] for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2

    # The same command with one more epoch continues the run and does not begin again.
    invoke(train, *arguments(root, "run", "--set", "training.max_epochs=3"))
    records = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records][:2] == steps
    assert [r["epoch"] for r in records] == [1, 2, 3]
    assert records[-1]["loss"] < records[0]["loss"]

    metrics = json.loads((root / "run/metrics.json").read_text())
    assert {"recall@10", "recall@20", "recall@50", "ndcg@10", "ndcg@20"} <= set(metrics["test"])
    assert {"seconds_per_epoch", "targets_per_second", "num_parameters", "peak_memory_gib", "seed"} <= set(metrics)
    assert metrics["details"]["test"]["targets"] == 300
    for name in ("config.yaml", "plan.txt", "checkpoints/index.json"):
        assert (root / "run" / name).exists(), name
    assert list((root / "run/tensorboard").glob("events*"))

    # The number of workers does not change any digit of the ranking.
    invoke(evaluate, "--run", root / "run", "--set", "cluster.num_workers=1")
    alone = json.loads((root / "run/evaluation-best.json").read_text())
    assert alone["num_workers"] == 1
    assert alone["test"] == metrics["test"]
    assert alone["details"] == metrics["details"]

    check_recommendations(root)


def check_recommendations(root):
    """Check that each user has five new items, best first, with source ids."""
    dataset = Dataset.open(str(root / "dataset"))
    output = root / "recs.parquet"
    said = invoke(recommend, "--run", root / "run", "--k", 5, "--output", output)
    assert f"wrote {output}: 1,500 recommendations" in said
    table = pq.read_table(output).to_pandas()
    assert table.groupby("user").size().eq(5).all()
    assert table.user.nunique() == dataset.num_users
    assert (table.groupby("user")["score"].diff().dropna() <= 0).all()
    items, users = dataset.item_source_ids().to_pylist(), dataset.user_source_ids().to_pylist()
    for number in (0, 17, 299):
        history = {items[i] for i in dataset.items[dataset.offsets[number] : dataset.offsets[number + 1]]}
        assert not history & set(table[table.user == users[number]].item), "the history is masked by default"
    assert "exists" in invoke(recommend, "--run", root / "run", "--output", output, status=2)


@pytest.mark.slow
def test_two_workers_start_from_a_run_of_one(root):
    sasrec = ("--set", "model.name=sasrec", "--set", "training.max_epochs=1")
    invoke(train, *arguments(root, "source", *sasrec, "--set", "cluster.num_workers=1"))
    own = ("--set", "table.sharding=row_wise", "--set", "training.freeze=[table.*]")
    said = invoke(train, *arguments(root, "tuned", *sasrec, *own, "--set", f"training.start_from={root}/source"))
    assert f"starting from the best checkpoint of {root}/source (step " in said
    assert json.loads((root / "tuned/metrics.json").read_text())["num_workers"] == 2
    source, tuned = (weights_at(root / run) for run in ("source", "tuned"))
    for name, value in tuned.items():
        assert same_bytes(value, source[name]) == name.startswith("table."), name


def test_popularity_needs_no_training(root):
    alone = ("--set", "cluster.num_workers=1")  # tests/evaluation/test_ranking.py has more workers
    said = invoke(train, *arguments(root, "run-popularity", "--set", "model.name=popularity", *alone))
    assert said.startswith("running in this process, without Ray")
    metrics = json.loads((root / "run-popularity/metrics.json").read_text())
    assert metrics["epochs"] == 0
    assert metrics["num_parameters"] == 0
    dataset = Dataset.open(str(root / "dataset"))
    # Compute the rank of the test item by training count here, with ties counted against it.
    counts = dataset.popularity()
    targets = dataset.items[dataset.offsets[1:] - 1]
    ranks = np.array([(counts > counts[t]).sum() + (counts == counts[t]).sum() for t in targets])
    expected = ranking_metrics(ranks, (10, 20, 50))
    assert metrics["test"] == pytest.approx(expected)


def bad(root, *more, run="run-bad", command=train):
    output = invoke(command, *arguments(root, run, *more), status=2)
    assert output.startswith("error: ")
    assert "Traceback" not in output
    return output


def test_a_users_mistake_is_one_clear_line(root, tmp_path):
    assert "did you mean model.name?" in bad(root, "--set", "model.nmae=sasrec")
    assert "jobs/prepare_data.py" in bad(root, "--set", f"dataset={tmp_path}/none")
    assert "jobs/build_graph.py" in bad(root, "--set", f"graph={tmp_path}/none")
    stated = bad(root, "--set", "graph_options.num_centers=5")
    assert "num_centers" in stated
    assert "was begun with model.dim=8" in bad(root, "--set", "model.dim=16", run="run-popularity")
    fused = bad(root, "--set", "table.sharding=row_wise", "--set", "table.optimizer=adam")
    assert "not for a row_wise table" in fused
    assert "'sound'" in bad(root, "--set", "model.mdsrec.modalities=[sound]")
    assert "too-many" in bad(root, "--set", "cluster.num_workers=too-many")
    (tmp_path / "file.txt").write_text("mine")
    assert "file.txt" in bad(root, "--set", f"run={tmp_path}")
    assert not (root / "run-bad").exists()

    other = tmp_path / "other"
    invoke(prepare_data, "--format", "synthetic", "--num-users", 50, "--num-items", 30, "--output", other, "--seed", 9)
    message = bad(root, "--set", f"dataset={other}")
    assert str(other) in message or "fingerprint" in message

    damaged = tmp_path / "damaged"
    shutil.copytree(root / "dataset", damaged)
    features = np.load(damaged / "features/text.npy")
    features[7, 3] = np.nan
    np.save(damaged / "features/text.npy", features)
    message = bad(root, "--set", f"dataset={damaged}")
    assert "text.npy" in message
    assert "7" in message

    missing = CliRunner().invoke(evaluate.main, ["--run", str(tmp_path / "no-run")])
    assert missing.exit_code == 2
    assert "no config.yaml" in missing.output
    unknown = CliRunner().invoke(evaluate.main, ["--run", str(root / "run"), "--checkpoint", "7"])
    assert unknown.exit_code == 2
    assert "error: --checkpoint 7" in unknown.output


def test_a_relative_output_is_refused_under_job_submit(root, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "vanishes with it" in bad(root, "--set", "run=relative/run")

"""A run of no epochs: it keeps the weights that it began with as a checkpoint, and every job works on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from distributed.checkpoints.index import read_index
from distributed.training.trainer import train
from distributed.world import World, world_of_one
from jobs import evaluate, export, recommend
from serving.loading import load
from tests.distributed.runs import config_of, records, weights
from tests.distributed.spawn import run_ranks
from tests.distributed.start_runs import started, weights_at

NONE = "training.max_epochs=0"
MISSREC = ("model.missrec.use_ids=false", "cluster.num_workers=1")


def on_ranks(world: World, folders: Path, source: Path, run: Path) -> None:
    metrics = train(started(folders, run, source, *MISSREC, NONE, "seed=1", model="missrec"), world)
    assert metrics is not None
    assert metrics["best_step"] == 0


@pytest.fixture(scope="module")
def runs(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of an epoch of MISSRec, whose buffers are computed before an epoch, and one of no epochs that begins so."""
    root = tmp_path_factory.mktemp("no-epochs")
    with world_of_one() as world:
        train(config_of(folders, root / "source", "missrec", *MISSREC, "training.max_epochs=1"), world)
        on_ranks(world, folders, root / "source", root / "run")
    return root / "source", root / "run"


@pytest.mark.long
def test_every_job_works_on_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    source, run = runs
    index = read_index(str(run), run / "checkpoints" / "index.json")
    assert (index.latest, index.best) == (0, 0)
    began, best = weights_at(run), weights_at(source)
    assert all(np.array_equal(began[name], value) for name, value in best.items())
    for job, arguments in (
        (evaluate.main, ["--run", str(run)]),
        (recommend.main, ["--run", str(run), "--k", "3", "--output", str(tmp_path / "lists.parquet")]),
        (export.main, ["--run", str(run), "--what", "items", "--to", "npy", "--output", str(tmp_path / "items.npy")]),
    ):
        done = CliRunner().invoke(job, arguments)
        assert done.exit_code == 0, done.output
    metrics = json.loads((run / "metrics.json").read_text())
    evaluation = json.loads((run / "evaluation-best.json").read_text())
    assert evaluation["checkpoint_step"] == 0
    assert evaluation["test"] == metrics["test"] == json.loads((source / "metrics.json").read_text())["test"]
    assert len(load(run).recommend([[1, 2]], k=4).item_ids[0]) == 4


@pytest.mark.ranks
@pytest.mark.slow
def test_it_is_the_same_for_any_number_of_ranks_and_may_be_repeated(
    folders: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    source, run = runs
    run_ranks(2, on_ranks, folders, source, tmp_path / "two")
    on_two, on_one = weights_at(tmp_path / "two"), weights_at(run)
    assert all(np.array_equal(on_two[name], value) for name, value in on_one.items())
    before = {path: path.read_bytes() for path in run.glob("checkpoints/**/*") if path.is_file()}
    with world_of_one() as world:
        on_ranks(world, folders, source, run)
    assert {path: path.read_bytes() for path in run.glob("checkpoints/**/*") if path.is_file()} == before


@pytest.mark.long
@pytest.mark.parametrize("model", ["sasrec", "missrec"])
def test_it_may_be_continued_and_ends_as_a_run_that_never_stopped(folders: Path, tmp_path: Path, model: str) -> None:
    with world_of_one() as world:
        straight = train(config_of(folders, tmp_path / "straight", model, "training.max_epochs=2"), world)
        train(config_of(folders, tmp_path / "continued", model, NONE), world)
        config = config_of(folders, tmp_path / "continued", model, "training.max_epochs=2")
        continued = train(config, world)
    assert straight is not None
    assert continued is not None
    assert continued["details"] == straight["details"]
    assert records(tmp_path / "continued") == records(tmp_path / "straight")
    found, expected = (weights(tmp_path / name, config) for name in ("continued", "straight"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())

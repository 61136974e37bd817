"""Configs, datasets, graphs and checkpoints of an earlier version are still read and give the same metrics."""

import json
import shutil
from pathlib import Path

import pytest

from data.dataset import Dataset
from distributed.checkpoints.run_folder import open_run_folder
from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.training.trainer import train
from distributed.world import world_of_one
from graph_builder.graph import Graph

KEPT = Path(__file__).resolve().parents[1] / "kept"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A copy of the kept files, and the working directory in which the runs' relative paths are valid."""
    shutil.copytree(KEPT, tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "kept")
    return tmp_path / "kept"


def test_datasets_and_graphs_are_whole_to_the_last_byte(kept):
    dataset = Dataset.open(str(kept / "dataset"))
    dataset.validate()
    graph = Graph.open(kept / "graph", dataset_fingerprint=dataset.fingerprint)
    graph.validate()
    assert (dataset.num_users, graph.num_items) == (40, 30)


@pytest.mark.parametrize("model", ["mdsrec", "sasrec"])
def test_a_run_is_ranked_as_it_was_and_can_be_continued(kept, model):
    run = f"run-{model}"
    before = json.loads((kept / run / "metrics.json").read_text())
    with world_of_one() as world:
        found = evaluate(run_config(run), world, "best")
        assert (found["valid"], found["test"]) == (before["valid"], before["test"])
        assert found["checkpoint_step"] == before["best_step"]
        config = run_config(run)
        longer = config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 3})})
        open_run_folder(longer)
        assert train(longer, world)["epochs"] == 3

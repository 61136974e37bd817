"""The jobs as functions: a pipeline as a notebook runs it, and errors instead of an exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mdsrec

SMALL = {
    "model.dim": 8, "model.num_heads": 2, "training.max_epochs": 1, "training.learning_rate": 0.00001,
    "evaluation.ks": [5, 10], "cluster.num_workers": 1,
}  # fmt: skip


def test_a_pipeline_from_a_file_to_recommendations(tmp_path: Path) -> None:
    rows = [f"u{user},i{(user * 3 + place) % 12},{place}" for user in range(30) for place in range(6)]
    (tmp_path / "data.csv").write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    dataset = mdsrec.prepare_data(
        "table",
        str(tmp_path / "dataset"),
        input=str(tmp_path / "data.csv"),
        min_user_interactions=3,
        overwrite=False,
        quotes=False,
        user_column=None,
    )
    assert dataset.manifest["source"]["quotes"] is False
    assert (dataset.num_users, dataset.num_items) == (30, 12)
    run = str(tmp_path / "run")
    metrics = mdsrec.train(str(tmp_path / "dataset"), run, settings={"model.name": "sasrec", **SMALL})
    assert metrics == json.loads((tmp_path / "run/metrics.json").read_text())
    assert set(metrics["test"]) == {"recall@5", "ndcg@5", "recall@10", "ndcg@10"}
    found = mdsrec.evaluate(run, settings={"evaluation.mask_history": True})
    assert found == json.loads((tmp_path / "run/evaluation-best-mask_history=true.json").read_text())
    lists = mdsrec.load(run).recommend([["i3", "i4"]], 2)
    assert set(lists.item_ids[0]) <= {f"i{n}" for n in range(12)} - {"i3", "i4"}


def test_a_graph_is_built(folders: Path, tmp_path: Path) -> None:
    options = {"graph_options.num_neighbors": 3, "graph_options.num_centers": 2}
    graph = mdsrec.build_graph(str(folders / "dataset"), str(tmp_path / "graph"), settings=options, executor="serial")
    assert graph.modalities == ("image", "text")
    assert graph.num_centers("text") == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda to: mdsrec.prepare_data("tables", to), "'tables' is not one of"),
        (lambda to: mdsrec.prepare_data("table", to, inputs="x"), "inputs: is not an option of this function; did you "
                                                                  "mean input"),
        (lambda to: mdsrec.prepare_data("table", to, input="nowhere.csv"), "nowhere.csv"),
        (lambda to: mdsrec.train("nowhere", to), "nowhere"),
        (lambda to: mdsrec.train("nowhere", to, settings={"model.dims": 3}), "unknown key model.dims"),
        (lambda to: mdsrec.evaluate(to), "has no config.yaml"),
        (lambda to: mdsrec.build_graph("nowhere", to), "nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_and_not_an_exit(tmp_path: Path, call: Any, said: str) -> None:
    with pytest.raises(mdsrec.InputError, match=said):
        call(str(tmp_path / "output"))


def test_a_stopped_training_returns_nothing(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise SystemExit(75)

    monkeypatch.setattr("mdsrec.calls._call", stopped)
    assert mdsrec.train(str(folders / "dataset"), str(tmp_path / "run")) is None

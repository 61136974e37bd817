"""Cases of bad input for runs on several datasets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from configs.loading import load_config
from data.dataset import Dataset
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare
from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import Damage, both
from tests.jobs.bad_input.world import GRAPH_SETTINGS

_TRAIN = "train --config {here}/config.yaml --set run={here}/new"
_SASREC = f"{_TRAIN} --set model.name=sasrec"
_BOTH = "dataset=[{here}/dataset,{here}/second]"
_MDSREC = f"{_TRAIN} --set {_BOTH}"


def _second(*more: str) -> Damage:
    """Prepare the same interactions with other vectors of texts, and build their graph with these settings."""

    def make(here: Path) -> None:
        np.save(here / "second.npy", 1 + np.load(here / "text.npy"))
        prepare(
            "table",
            str(here / "second"),
            str(here / "raw.parquet"),
            features={"text": str(here / "second.npy")},
            feature_ids={"text": str(here / "text.ids")},
        )
        options = load_config(None, [*GRAPH_SETTINGS, *more]).graph_options
        build_graph(Dataset.open(str(here / "second")), str(here / "second-graph"), options, 0, SerialExecutor())

    return make


def _third(here: Path) -> None:
    """Prepare the same interactions without vectors."""
    prepare("table", str(here / "third"), str(here / "raw.parquet"))


def _encoders(**revisions: str) -> Damage:
    """Say in the manifests of datasets by which revision of an encoder their texts were encoded."""

    def say(here: Path) -> None:
        for name, revision in revisions.items():
            path = here / name / "manifest.json"
            manifest = json.loads(path.read_text())
            manifest["modalities"]["text"]["encoder"] = {"name": "minilm", "revision": revision}
            path.write_text(json.dumps(manifest))

    return say


GROUPS = (
    Group(
        "Several datasets",
        (
            Case("a list of no dataset", f"{_SASREC} --set dataset=[]"),
            Case("a list that is not closed", f"{_SASREC} --set dataset=[{{here}}/dataset"),
            Case("a number in a list of datasets", f"{_SASREC} --set dataset=[{{here}}/dataset,7]"),
            Case("one of several datasets is not there", f"{_SASREC} --set dataset=[{{here}}/dataset,{{here}}/none]"),
            Case("one dataset twice", f"{_SASREC} --set dataset=[{{here}}/dataset,{{here}}/other,{{here}}/dataset]"),
            Case("vectors of two widths", f"{_SASREC} --set dataset=[{{here}}/dataset,{{here}}/other]"),
            Case(
                "vectors of two encoders",
                f"{_SASREC} --set {_BOTH}",
                both(_second(), _encoders(dataset="1", second="2")),
            ),
            Case("one graph for two datasets", f"{_MDSREC} --set graph={{here}}/graph", _second()),
            Case(
                "graphs in another order than their datasets",
                f"{_MDSREC} --set graph=[{{here}}/second-graph,{{here}}/graph]",
                _second(),
            ),
            Case(
                "a graph of none of the datasets",
                f"{_TRAIN} --set dataset=[{{here}}/dataset,{{here}}/third] "
                "--set graph=[{here}/graph,{here}/second-graph]",
                both(_second(), _third),
            ),
            Case(
                "graphs of different settings",
                f"{_MDSREC} --set graph=[{{here}}/graph,{{here}}/second-graph]",
                _second("graph_options.mu=0.75"),
            ),
            Case(
                "one graph of several datasets",
                f"build_graph --set {_BOTH} --set graph=[{{here}}/graph,{{here}}/second-graph]",
            ),
            Case("one new graph of several datasets", f"build_graph --set {_BOTH} --set graph={{here}}/new"),
            Case("batches of a kind that is not there", f"{_SASREC} --set {_BOTH} --set training.domains=alone"),
            Case(
                "a run that continues with a further dataset",
                f"train --config {{here}}/config.yaml --set model.name=sasrec --set run={{here}}/run --set {_BOTH} "
                "--set training.max_epochs=1 --set cluster.num_workers=1",
                _second(),
            ),
        ),
    ),
)

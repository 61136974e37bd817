"""What is on disk when the power goes while a graph is built: no block and no manifest counts before its bytes are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from tests.graph_builder.small_dataset import OPTIONS, make_dataset
from tests.storage.disk import Disk


def test_every_file_is_on_disk_before_the_manifest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, graph = make_dataset(tmp_path / "dataset"), tmp_path / "graph"
    disk, replace, on_disk = Disk(monkeypatch), os.replace, []

    def checked(source: Path, target: Path) -> None:
        if target.name == "manifest.json":
            files = sorted(path for path in graph.rglob("*.npy") if graph / "work" not in path.parents)
            on_disk.extend(disk.read(path) == path.read_bytes() for path in files)
        replace(source, target)
        assert disk.holds(target), f"{target} has its name and not its bytes"

    monkeypatch.setattr(os, "replace", checked)
    build_graph(dataset, graph, OPTIONS, 0, SerialExecutor())
    assert len(on_disk) > 10
    assert all(on_disk)
    assert disk.read(graph / "manifest.json") == (graph / "manifest.json").read_bytes()
    Graph.open(graph).validate()

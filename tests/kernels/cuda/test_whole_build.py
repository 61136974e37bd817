"""A whole graph, built in one process on a device: every file has the bytes of the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

from graph_builder import executor as executors
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.stages import clusters, cooccurrence, injection
from kernels.cosine import pair_search
from kernels.cuda import device_rows
from tests.graph_builder.small_dataset import OPTIONS, content, make_dataset


@pytest.mark.long
def test_a_graph_built_on_a_device_has_the_bytes_of_the_cpu(xp, device, tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "dataset")
    rng = np.random.default_rng(0)
    for name in dataset.modalities:  # not whole numbers: the order of every sum is in the bytes
        present = (dataset.features(name) != 0).any(axis=1, keepdims=True)
        rows = rng.standard_normal((dataset.num_items, 140)) * present
        np.save(dataset.feature_path(name), rows.astype(dataset.features(name).dtype))
    options = OPTIONS.model_copy(update={"backend": "cuda"})
    on_cpu = build_graph(dataset, tmp_path / "cpu", OPTIONS, 0, SerialExecutor())
    for module in (executors, clusters, cooccurrence, injection, pair_search):
        monkeypatch.setattr(module, "array_module", lambda backend: device if backend == "cuda" else np)
    monkeypatch.setattr("graph_builder.build.array_module", lambda _: device)
    if xp is np:
        monkeypatch.setattr(pair_search, "can_record", lambda _: True)
    executor = SerialExecutor("cuda")
    assert executor.gpus == 1
    used = []
    plain = device_rows.rows_on_device
    monkeypatch.setattr(pair_search, "rows_on_device", lambda *arguments: used.append(0) or plain(*arguments))
    on_device = build_graph(dataset, tmp_path / "device", options, 0, executor)
    assert used
    assert not device_rows._held
    assert on_device["layout"]["precision"] == "float16"
    assert content(tmp_path / "device") == content(tmp_path / "cpu")
    for name, facts in on_device["modalities"].items():
        assert facts["inertia"] == on_cpu["modalities"][name]["inertia"]
    assert on_device["cooccurrence"] == on_cpu["cooccurrence"]

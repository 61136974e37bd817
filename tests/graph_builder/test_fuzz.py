"""Mutated graphs, features and sequences: an error or a correct load, never another exception, never another graph."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from graph_builder.build import build_graph
from graph_builder.build_inputs import check_features
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from graph_builder.sequence_file import open_sequences
from storage.array_file import map_array
from tests.graph_builder.small_dataset import OPTIONS, make_dataset
from tests.mutation import folder_of, made, mutated


def everything(graph: Graph) -> dict[str, Any]:
    """All that a consumer can ask a graph for."""
    tables = {
        m: [np.array(part(m)) for part in (graph.neighbors, graph.neighbor_scores, graph.clusters, graph.centers)]
        for m in graph.modalities
    }
    return {
        "facts": (graph.num_items, graph.modalities, graph.fingerprint),
        "manifest": graph.manifest,
        "cooccurrence": [part.tolist() for part in graph.cooccurrence_rows(np.arange(graph.num_items))],
        "tables": {m: [array.tolist() for array in arrays] for m, arrays in tables.items()},
    }


def small_graph(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        build_graph(make_dataset(Path(root) / "dataset"), folder, OPTIONS, 0, SerialExecutor())


@cache
def sound() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files of a graph, and what it says; made where the first test asks, not at each import."""
    files = made(small_graph)
    with folder_of(files) as folder:
        return files, everything(Graph.open(folder))


@pytest.mark.long
@settings(derandomize=True, deadline=None, database=None, max_examples=400)
@given(st.deferred(lambda: mutated(sound()[0])))
def test_a_mutated_graph_is_refused_or_the_same(contents: dict[str, bytes]) -> None:
    with folder_of(contents) as folder:
        try:
            graph = Graph.open(folder)
            graph.validate()
        except InputError:
            return
        assert everything(graph) == sound()[1]


LISTS = [[3, 1, 2], [], [5], [0, 4, 4, 1]]
COLUMNS = pa.table({"items": pa.array(LISTS, pa.list_(pa.int64())), "train_end": [1, 0, 1, 4]})


def parquet_file(folder: Path) -> None:
    pq.write_table(COLUMNS, folder / "sequences", write_page_checksum=True)


def arrow_file(folder: Path) -> None:
    with pa.ipc.new_file(folder / "sequences", COLUMNS.schema) as writer:
        writer.write_table(COLUMNS)


@pytest.mark.parametrize("write", [parquet_file, arrow_file])
def test_mutated_sequences_are_refused_or_of_the_right_form(write: Any) -> None:
    """Neither format has a checksum of everything, so another id within range is what the file then says."""

    @settings(derandomize=True, deadline=None, database=None, max_examples=300)
    @given(mutated(made(write)))
    def check(contents: dict[str, bytes]) -> None:
        with folder_of(contents) as folder:
            try:
                found = open_sequences(folder / "sequences", 6)
            except InputError:
                return
            assert found.offsets[0] == 0
            assert found.offsets[-1] == len(found.items)
            assert (np.diff(found.offsets) >= 0).all()
            assert ((found.train_end >= 0) & (found.train_end <= np.diff(found.offsets))).all()
            assert ((found.items >= 0) & (found.items < 6)).all()

    check()


def test_offsets_that_lead_out_of_a_file_are_refused_not_followed() -> None:
    offsets = np.array([0, 3, 3, 4, 8], dtype=np.int32)
    content = made(arrow_file)["sequences"]
    assert content.count(offsets.tobytes()) == 1
    led_astray = content.replace(offsets.tobytes(), np.array([0, 2**30, 3, 4, 8], dtype=np.int32).tobytes())
    with folder_of({"sequences": led_astray}) as folder, pytest.raises(InputError, match="cannot be decoded"):
        open_sequences(folder / "sequences", 6)


FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(mutated(made(lambda folder: np.save(folder / "text.npy", FEATURES))))
def test_mutated_features_are_refused_or_what_the_header_says(contents: dict[str, bytes]) -> None:
    with folder_of(contents) as folder:
        try:
            rows, width = check_features(folder / "text.npy")
        except InputError:
            return
        array = map_array(folder / "text.npy")
        assert array.shape == (rows, width)
        assert contents["text.npy"].endswith(array.tobytes()) or len(contents["text.npy"]) > 128 + array.nbytes

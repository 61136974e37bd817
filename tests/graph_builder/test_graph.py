"""Opening a graph: right rows for any request, and one clear error for whatever is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import InputError
from contracts.graph_rows import GraphRows
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from tests.graph_builder.small_dataset import NUM_ITEMS, OPTIONS, SmallDataset, make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def pristine(dataset: SmallDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "graph"
    build_graph(dataset, path, OPTIONS, 0, SerialExecutor())
    return path


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(pristine, tmp_path / "graph")


@pytest.mark.parametrize("items", [[], [5], [82, 0, 17, 17, 16, 15], list(range(NUM_ITEMS))])
def test_rows_come_in_the_order_asked_for(pristine: Path, items: list[int]) -> None:
    graph: GraphRows = Graph.open(pristine)
    indptr, indices, weights = graph.cooccurrence_rows(np.array(items, dtype=np.int64))
    assert (indptr.dtype, indices.dtype, weights.dtype) == (np.int64, np.int64, np.float32)
    assert len(indptr) == len(items) + 1
    for place, item in enumerate(items):
        block, row = divmod(item, OPTIONS.block_rows)
        stored = [
            np.load(pristine / f"cooccurrence/block-{block:05d}.{n}.npy") for n in ("indptr", "indices", "weights")
        ]
        begin, end = stored[0][row : row + 2]
        part = slice(indptr[place], indptr[place + 1])
        np.testing.assert_array_equal(indices[part], stored[1][begin:end])
        np.testing.assert_array_equal(weights[part], stored[2][begin:end])


def test_another_datasets_graph_is_refused(pristine: Path, dataset: SmallDataset) -> None:
    with pytest.raises(InputError) as error:
        Graph.open(pristine, dataset_fingerprint="dataset-9", dataset_path="/data/nine")
    for named in (str(pristine), dataset.path, dataset.fingerprint, "/data/nine", "dataset-9"):
        assert named in str(error.value)


def test_other_parameters_are_refused(pristine: Path) -> None:
    with pytest.raises(InputError, match=r"graph_options.mu=0.5, the config says 0.2"):
        Graph.open(pristine, expected={"mu": 0.2})


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest.json; build it with"):
        Graph.open(tmp_path)
    with pytest.raises(InputError, match="is a URI where a local folder is needed"):
        Graph.open("s3://bucket/graph")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON, so truncated or altered; build the graph again"),
        ("[]", "is not the manifest of a graph"),
        ('{"kind": "item graph", "schema_version": 99}', "schema_version is 99, this code reads 1"),
        ('{"kind": "item graph", "schema_version": 1}', "field fingerprint is missing, expected str"),
    ],
)
def test_broken_manifest(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Graph.open(folder)


@pytest.mark.parametrize(
    "name",
    [
        "neighbors/text.npy",
        "neighbors/text.scores.npy",
        "clusters/image.npy",
        "clusters/image.centers.npy",
        "cooccurrence/block-00001.indptr.npy",
        "cooccurrence/block-00001.indices.npy",
        "cooccurrence/block-00001.weights.npy",
    ],
)
def test_truncated_and_missing_files(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    for size in (0, 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"{name}: missing or truncated"):
            Graph.open(folder)
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}: missing or truncated"):
        Graph.open(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("neighbors/text.npy", NUM_ITEMS),
        ("neighbors/text.npy", -2),
        ("clusters/text.npy", OPTIONS.num_centers),
        ("cooccurrence/block-00000.indices.npy", -1),
        ("cooccurrence/block-00000.indices.npy", NUM_ITEMS),
    ],
)
def test_ids_out_of_range(folder: Path, name: str, value: int) -> None:
    array = np.load(folder / name)
    array[3] = value
    np.save(folder / name, array)
    with pytest.raises(InputError, match=rf"{name}: row 3 holds {value}, outside"):
        Graph.open(folder).cooccurrence_rows(np.arange(NUM_ITEMS))


def test_wrong_shape(folder: Path) -> None:
    np.save(folder / "neighbors/text.npy", np.zeros((NUM_ITEMS - 1, 4), dtype=np.int64))
    with pytest.raises(InputError, match=r"holds int64 \[82, 4\], expected int64 \[83, 4\]"):
        Graph.open(folder)


def test_manifest_is_plain_json(pristine: Path) -> None:
    manifest = json.loads((pristine / "manifest.json").read_text())
    assert manifest["cooccurrence"]["block_rows"] == OPTIONS.block_rows
    assert manifest["dataset"]["fingerprint"] == "dataset-0"

"""Exports read by the libraries they are for, against the graph itself; and what is never overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch

from contracts.errors import InputError
from graph_builder import export_formats, exports
from graph_builder.build import build_graph
from graph_builder.build_inputs import ArraySource
from graph_builder.executor import SerialExecutor
from graph_builder.exports import KINDS, export
from graph_builder.graph import Graph
from tests.graph_builder.small_dataset import NUM_ITEMS, OPTIONS, make_dataset

# More neighbours than the few items with an image have: lists are padded.
WIDE = OPTIONS.model_copy(update={"num_neighbors": NUM_ITEMS - 3})


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    root = tmp_path_factory.mktemp("graph")
    build_graph(make_dataset(root / "dataset"), root / "graph", WIDE, 0, SerialExecutor())
    return Graph.open(root / "graph")


@pytest.fixture(params=[1, 7, 1 << 20])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges pass one by one, a few at a time, and all at once."""
    for module in (exports, export_formats):
        monkeypatch.setattr(module, "EDGES_AT_A_TIME", request.param)


def expected_edges(graph: Graph, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, targets and weights, by loops."""
    if what == "cooccurrence":
        indptr, items, weights = graph.cooccurrence_rows(np.arange(graph.num_items))
        return np.repeat(np.arange(graph.num_items), np.diff(indptr)), items, weights
    modality = what.removeprefix("neighbors:")
    ids, scores, clusters = graph.neighbors(modality), graph.neighbor_scores(modality), graph.clusters(modality)
    edges = [
        (item, int(target), scores[item, place])
        for item in range(graph.num_items)
        if clusters[item] >= 0
        for place, target in enumerate(ids[item])
        if target >= 0
    ]
    return tuple(np.array(column) for column in zip(*edges, strict=True))  # type: ignore[return-value]


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("what", ["cooccurrence", "neighbors:image", "neighbors:text"])
def test_every_library_reads_the_same_edges(graph: Graph, what: str, tmp_path: Path) -> None:
    sources, targets, weights = expected_edges(graph, what)
    missing = np.flatnonzero(graph.clusters("image") < 0)
    assert len(missing)
    assert (graph.neighbors("image")[:, -1] == -1).all()
    if what == "neighbors:image":
        assert not np.isin(sources, missing).any()
        assert (sources == targets).sum() == NUM_ITEMS - len(missing)

    assert export(graph, what, "npz", tmp_path / "m.npz") == len(sources)
    matrix = scipy.sparse.load_npz(tmp_path / "m.npz")
    assert matrix.format == "csr"
    assert matrix.shape == (NUM_ITEMS, NUM_ITEMS)
    assert matrix.dtype == np.float32
    assert matrix.indices.dtype == np.int32
    assert matrix.has_canonical_format
    np.testing.assert_array_equal(np.diff(matrix.indptr), np.bincount(sources, minlength=NUM_ITEMS))
    dense = np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)
    dense[sources, targets] = weights
    np.testing.assert_array_equal(matrix.toarray(), dense)

    assert export(graph, what, "parquet", tmp_path / "e.parquet") == len(sources)
    table = pq.read_table(tmp_path / "e.parquet")
    assert [str(field.type) for field in table.schema] == ["int64", "int64", "float"]
    assert table.schema.metadata[b"num_items"] == b"83"
    for name, column in (("source", sources), ("target", targets), ("weight", weights)):
        np.testing.assert_array_equal(table[name].to_numpy(), column)

    assert export(graph, what, "edge_index", tmp_path / "g.pt") == len(sources)
    loaded = torch.load(tmp_path / "g.pt", weights_only=True)
    # As torch_geometric.data.Data(edge_index=, edge_weight=, num_nodes=) takes them.
    assert loaded["edge_index"].dtype == torch.int64
    assert loaded["edge_index"].is_contiguous()
    assert loaded["edge_weight"].dtype == torch.float32
    assert loaded["num_nodes"] == NUM_ITEMS
    np.testing.assert_array_equal(loaded["edge_index"].numpy(), np.stack([sources, targets]))
    np.testing.assert_array_equal(loaded["edge_weight"].numpy(), weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "g.pt", "m.npz"]


def test_a_graph_without_edges(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((5, 2), dtype=np.float32))
    options = OPTIONS.model_copy(update={"num_neighbors": 1, "num_centers": 1})
    build_graph(ArraySource(features={"f": tmp_path / "f.npy"}), tmp_path / "graph", options, 0, SerialExecutor())
    graph = Graph.open(tmp_path / "graph")
    for to in KINDS:
        assert export(graph, "cooccurrence", to, tmp_path / to) == 0
        assert export(graph, "neighbors:f", to, tmp_path / to, overwrite=True) == 5  # each its own neighbour
    assert scipy.sparse.load_npz(tmp_path / "npz").nnz == 5


def test_rows_are_written_in_groups(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (exports, export_formats):
        monkeypatch.setattr(module, "EDGES_AT_A_TIME", 100)
    export(graph, "cooccurrence", "parquet", tmp_path / "e.parquet")
    metadata = pq.read_metadata(tmp_path / "e.parquet")
    assert metadata.num_row_groups > 1
    assert max(metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)) <= 100


def refusal(graph: Graph, what: str, to: str, output: Path, overwrite: bool = False) -> str:
    before = output.read_bytes() if output.is_file() else None
    with pytest.raises(InputError) as caught:
        export(graph, what, to, output, overwrite)
    assert (output.read_bytes() if output.is_file() else None) == before
    return str(caught.value)


@pytest.mark.parametrize("to", list(KINDS))
def test_only_an_earlier_export_is_replaced(graph: Graph, to: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    export(graph, "cooccurrence", to, output)
    assert "add --overwrite" in refusal(graph, "neighbors:text", to, output)
    export(graph, "neighbors:text", to, output, overwrite=True)
    for other in set(KINDS) - {to}:
        assert "is never replaced" in refusal(graph, "cooccurrence", other, output, overwrite=True)
    output.write_text("my notes")
    assert "is never replaced" in refusal(graph, "cooccurrence", to, output, overwrite=True)
    torch.save({"model": torch.ones(2)}, output)
    assert "is never replaced" in refusal(graph, "cooccurrence", to, output, overwrite=True)


def test_outputs_and_names_that_are_refused(graph: Graph, tmp_path: Path) -> None:
    assert "cooccurrence, neighbors:image, neighbors:text" in refusal(graph, "neighbors:sound", "npz", tmp_path / "o")
    assert "name one of these" in refusal(graph, "image", "npz", tmp_path / "o")
    assert "does not exist" in refusal(graph, "cooccurrence", "npz", tmp_path / "no" / "o")
    assert "not a plain file" in refusal(graph, "cooccurrence", "npz", tmp_path)
    assert "own folder" in refusal(graph, "cooccurrence", "npz", graph.path / "o.npz")


def test_nothing_is_left_of_an_export_that_fails(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, *_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", Full)
    assert "No space left" in refusal(graph, "cooccurrence", "parquet", tmp_path / "e.parquet")
    assert not list(tmp_path.iterdir())

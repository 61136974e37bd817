"""Graphs from feature and sequence files: what is accepted, what is refused, and what travels to tasks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from graph_builder import sequence_file
from graph_builder.build import build_graph
from graph_builder.build_inputs import ArraySource
from graph_builder.executor import SerialExecutor
from graph_builder.graph import Graph
from graph_builder.sequence_file import open_sequences
from tests.graph_builder.small_dataset import NUM_ITEMS, OPTIONS, SmallDataset, content, make_dataset

LISTS = [[3, 1, 2], [], [5], [2, 2, 9, 0]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset")


def table_of(dataset: SmallDataset) -> pa.Table:
    lists = pa.LargeListArray.from_arrays(dataset.offsets, dataset.items)
    return pa.table({"items": lists, "train_end": dataset.train_end})


def write_arrow(path: Path, table: pa.Table, rows_per_batch: int | None = None, compression: str | None = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return path


def write_parquet(path: Path, table: pa.Table, rows_per_group: int | None = None) -> Path:
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def refusal(
    features: Mapping[str, str | Path], sequences: Path | None = None, num_items: int | None = None, **options: Any
) -> str:
    with pytest.raises(InputError) as caught:
        ArraySource(features=features, sequences=sequences, num_items=num_items, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_give_the_graph_of_the_dataset(dataset: SmallDataset, tmp_path: Path) -> None:
    build_graph(dataset, tmp_path / "whole", OPTIONS, 0, SerialExecutor())
    features = {m: dataset.feature_path(m) for m in dataset.modalities}
    sequences = write_parquet(tmp_path / "sequences.parquet", table_of(dataset), 7)
    source = ArraySource(features=features, sequences=sequences)
    assert source.modalities == ("image", "text")
    manifest = build_graph(source, tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    assert content(tmp_path / "graph") == content(tmp_path / "whole")
    assert manifest["dataset"]["fingerprint"] == source.fingerprint
    assert str(sequences) in manifest["dataset"]["path"]
    assert not list(tmp_path.glob(".*"))  # the copy of the sequences has no name


def test_features_alone(dataset: SmallDataset, tmp_path: Path) -> None:
    source = ArraySource(features={"image": dataset.feature_path("image")})
    manifest = build_graph(source, tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    graph = Graph.open(tmp_path / "graph")
    assert manifest["cooccurrence"]["num_pairs"] == 0
    indptr, items, _ = graph.cooccurrence_rows(np.arange(NUM_ITEMS))
    assert not indptr.any()
    assert not len(items)
    # Nothing is injected: the scores are the raw features' cosines.
    raw = np.asarray(dataset.features("image")).astype(np.float64)
    ids, scores = graph.neighbors("image"), graph.neighbor_scores("image")
    norms = np.sqrt((raw * raw).sum(axis=1))
    row = 1  # present
    cosines = raw[ids[row]] @ raw[row] / (norms[ids[row]] * norms[row])
    np.testing.assert_allclose(scores[row], cosines, rtol=1e-6)


def test_sequences_alone(dataset: SmallDataset, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "s.parquet", table_of(dataset))
    assert ArraySource(features={}, sequences=path).num_items == dataset.items.max() + 1
    source = ArraySource(features={}, sequences=path, num_items=NUM_ITEMS)
    build_graph(source, tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    build_graph(dataset, tmp_path / "whole", OPTIONS, 0, SerialExecutor())
    graph, whole = Graph.open(tmp_path / "graph"), Graph.open(tmp_path / "whole")
    assert graph.modalities == ()
    every = np.arange(NUM_ITEMS)
    for found, expected in zip(graph.cooccurrence_rows(every), whole.cooccurrence_rows(every), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.int32())])
def test_any_cut_and_compression_is_the_same_source(
    kind: pa.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_file, "_IDS_AT_A_TIME", 3)
    table = pa.table({"items": pa.array(LISTS, kind)})
    files = [
        write_arrow(tmp_path / "whole.arrow", table),
        write_arrow(tmp_path / "cut.arrow", table, 2),
        write_arrow(tmp_path / "zstd.arrow", table, compression="zstd"),
        write_parquet(tmp_path / "cut.parquet", table, 2),
    ]
    found = [open_sequences(file) for file in files]
    for sequences in found:
        np.testing.assert_array_equal(sequences.items, np.concatenate(LISTS))
        np.testing.assert_array_equal(sequences.offsets, [0, 3, 3, 4, 8])
        np.testing.assert_array_equal(sequences.train_end, [3, 0, 1, 4])
        assert sequences.num_items == 10
    assert len({sequences.fingerprint for sequences in found}) == 1
    with_ends = table.append_column("train_end", pa.array([2, 0, 1, 4]))
    assert open_sequences(write_parquet(tmp_path / "e.parquet", with_ends)).fingerprint != found[0].fingerprint


def test_arrow_is_mapped_not_read(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "s.arrow", pa.table({"items": pa.array(LISTS, pa.list_(pa.int64()))}))
    sequences = open_sequences(path)
    with path.open("r+b") as file:
        place = file.read().index(np.array(LISTS[0], dtype=np.int64).tobytes())
        file.seek(place)
        file.write(np.int64(7).tobytes())
    assert sequences.items[0] == 7


class PicklingExecutor(SerialExecutor):
    """Keeps the size of everything that would travel to a task."""

    largest = 0

    def run_blocks(
        self, function: Callable[[Any], Any], blocks: Sequence[Any], *, label: str | None = None, on_gpu: bool = False
    ) -> Iterator[Any]:
        sizes = [len(pickle.dumps(thing)) for thing in (function, *blocks)]
        self.largest = max(self.largest, *sizes)
        return super().run_blocks(function, blocks, label=label, on_gpu=on_gpu)


def test_only_paths_travel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "text.npy", rng.normal(size=(400, 16)).astype(np.float32))
    table = pa.table({"items": pa.array([rng.integers(0, 400, 20).tolist() for _ in range(300)])})
    source = ArraySource(
        features={"text": tmp_path / "text.npy"}, sequences=write_parquet(tmp_path / "s.parquet", table)
    )
    executor = PicklingExecutor()
    build_graph(source, tmp_path / "graph", OPTIONS, 0, executor)
    assert 0 < executor.largest < 8000  # the features have 25,600 bytes, the items 48,000


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    rows = np.ones((4, 3), dtype=np.float32)
    for name in ("a", "b", "c"):
        np.save(tmp_path / f"{name}.npy", rows + (name == "c"))
    a, b, c = (ArraySource(features={"text": tmp_path / f"{name}.npy"}).fingerprint for name in "abc")
    assert a == b
    assert a != c
    assert a != ArraySource(features={"image": tmp_path / "a.npy"}).fingerprint


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones((4, 3)), "float64 [4, 3], expected float16 or float32; save it as np.save('f.npy', np.ascontig"),
        (np.ones((4, 3), dtype=np.int32), "int32"),
        (np.ones(4, dtype=np.float32), "1 dimension(s) [4]"),
        (np.ones((0, 3), dtype=np.float32), "is empty [0, 3]"),
        (np.ones((3, 0), dtype=np.float32), "is empty [3, 0]"),
        (np.asfortranarray(np.ones((4, 3), dtype=np.float32)), "column order (Fortran)"),
        (np.array([["a", 1]], dtype=object), "Python objects, which only pickle reads"),
        (np.ones((4, 3), dtype=">f4"), ">f4"),
    ],
)
def test_features_that_are_refused(array: np.ndarray, reason: str, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", array, allow_pickle=True)
    message = refusal({"text": tmp_path / "f.npy"})
    assert message.startswith(f"{tmp_path}/f.npy: ")
    assert reason in message


def test_feature_files_that_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((50, 3), dtype=np.float16))
    np.save(tmp_path / "b.npy", np.ones((60, 3), dtype=np.float16))
    assert "b.npy: has 60 rows" in refusal({"image": tmp_path / "a.npy", "text": tmp_path / "b.npy"})
    assert "--num-items is 7" in refusal({"image": tmp_path / "a.npy"}, None, 7)
    assert "name an existing" in refusal({"text": tmp_path / "none.npy"})
    (tmp_path / "text.npy").write_text("1 2 3")
    assert "not a .npy file" in refusal({"text": tmp_path / "text.npy"})
    np.savez(tmp_path / "z.npz", a=np.ones(3))
    assert "not a .npy file" in refusal({"text": tmp_path / "z.npz"})
    (tmp_path / "short.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-5])
    assert "truncated" in refusal({"text": tmp_path / "short.npy"})
    (tmp_path / "head.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:20])
    assert "not a .npy file" in refusal({"text": tmp_path / "head.npy"})
    assert "no input" in refusal({})


def test_a_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    rows = np.ones((50, 3), dtype=np.float32)
    rows[37, 1] = np.nan
    np.save(tmp_path / "f.npy", rows)
    with pytest.raises(InputError, match=r"f\.npy: row 37 .* NaN"):
        build_graph(ArraySource(features={"f": tmp_path / "f.npy"}), tmp_path / "graph", OPTIONS, 0, SerialExecutor())
    assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"items": pa.array([[1], [2, 50]])}, "row 1 holds item 50, outside [0, 50)"),
        ({"items": pa.array([[1], [], [0, -1]])}, "row 2 holds item -1, outside [0, 50)"),
        ({"items": pa.array([[2**63]], pa.list_(pa.uint64()))}, "cannot be decoded"),
        ({"items": pa.array([[1], None])}, "row 1 has no items (null)"),
        ({"items": pa.array([[1], [], [2, None]])}, "row 2 holds a null"),
        ({"items": pa.array([[1.5]])}, "column items is list<"),
        ({"items": pa.array([1, 2])}, "column items is int64"),
        ({"item": pa.array([[1]])}, "no column items, only item;"),
        ({"items": pa.array([], pa.list_(pa.int64()))}, "has no rows"),
        ({"items": pa.array([[1], [2]]), "train_end": [1, 2]}, "row 1 has train_end 2, outside [0, 1]"),
        ({"items": pa.array([[1], [2]]), "train_end": [-1, 1]}, "row 0 has train_end -1"),
        ({"items": pa.array([[1], [2]]), "train_end": [1, None]}, "row 1 has no train_end (null)"),
        ({"items": pa.array([[1]]), "train_end": ["x"]}, "column train_end is string"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_sequences_that_are_refused(columns: dict[str, Any], reason: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"s.{suffix}"
    table = pa.table(columns)
    if suffix == "parquet":
        write_parquet(path, table, 1)
    elif table.num_rows:
        write_arrow(path, table)
    else:
        write_arrow(path, table, 1)
    message = refusal({}, path, 50)
    assert message.startswith(f"{path}: ")
    assert reason in message


def test_sequence_files_that_are_refused(tmp_path: Path) -> None:
    assert "name an existing" in refusal({}, tmp_path / "none.parquet")
    (tmp_path / "s.csv").write_text("user,item\n")
    assert "neither a Parquet nor an Arrow" in refusal({}, tmp_path / "s.csv")
    whole = write_parquet(tmp_path / "s.parquet", pa.table({"items": pa.array(LISTS)})).read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[:-20])
    assert "truncated or damaged" in refusal({}, tmp_path / "short.parquet")
    arrow = write_arrow(tmp_path / "s.arrow", pa.table({"items": pa.array(LISTS)})).read_bytes()
    (tmp_path / "short.arrow").write_bytes(arrow[:-20])
    assert "truncated or damaged" in refusal({}, tmp_path / "short.arrow")
    empty = write_parquet(tmp_path / "empty.parquet", pa.table({"items": pa.array([[], []], pa.list_(pa.int64()))}))
    assert "2 rows hold no item at all" in refusal({}, empty)
    assert ArraySource(features={}, sequences=empty, num_items=5).num_items == 5
    np.save(tmp_path / "f.npy", np.ones((6, 2), dtype=np.float32))
    assert "row 3 holds item 9, outside [0, 6)" in refusal({"f": tmp_path / "f.npy"}, tmp_path / "s.parquet")

"""A search finds the exact items for any shards; a damaged index or a query that does not fit gives one clear line."""

import json
import sys

import numpy as np
import pytest

from contracts.errors import InputError
from serving.index.kinds import IndexOptions
from serving.index.recall import measure, recall
from serving.index.search import VectorIndex
from tests.serving.index_cases import RUN, build, built, nearest


@pytest.mark.parametrize("held_bytes", [0, np.inf])
@pytest.mark.parametrize("shard_items", [1, 77, 500])
def test_a_flat_index_finds_the_exact_items_for_any_shards(vectors, queries, tmp_path, shard_items, held_bytes):
    few = vectors[:40] if shard_items == 1 else vectors
    build(few, tmp_path / "index", shard_items=shard_items)
    index = VectorIndex.open(tmp_path / "index", verify=True, held_bytes=held_bytes)
    for depth in (1, 9, len(few)):
        ids, scores = index.search(queries, depth)
        expected, values = nearest(few, queries, depth)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(scores, values, rtol=1e-5, atol=1e-5)
    chosen = np.array([39, 0, 17])
    np.testing.assert_array_equal(index.vectors_of(chosen), few[chosen])


def test_parts_are_searched_by_themselves(vectors, queries, tmp_path):
    index = built(vectors, tmp_path / "index", widths=[4, 8], shard_items=200)
    for part, columns in enumerate((slice(0, 4), slice(4, 12))):
        ids, _ = index.search(queries, 5, part=part)
        np.testing.assert_array_equal(ids, nearest(vectors[:, columns], queries[:, columns], 5)[0])
        norms = np.linalg.norm(vectors[:, columns].astype(np.float64), axis=1)
        assert norms.max() <= index.manifest.max_norms[part] <= norms.max() * 1.0001
    np.testing.assert_array_equal(index.vectors_of(np.arange(500)), vectors)


@pytest.mark.parametrize("held_bytes", [0, np.inf])
@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"kind": "hnsw", "links": 8, "ef_construction": 40}, 0.95),
        ({"kind": "ivfflat", "nlist": 8}, 1.0),  # every cluster is searched
        ({"kind": "ivfpq", "nlist": 4, "nbits": 6}, 0.5),
    ],
)
def test_approximate_indexes_find_most_items(vectors, queries, tmp_path, options, least, held_bytes):
    build(vectors, tmp_path / "index", options=IndexOptions(**options), shard_items=260)
    index = VectorIndex.open(tmp_path / "index", held_bytes=held_bytes)
    point = measure(index, queries, nearest(vectors, queries, 10)[0], lengths=(1, 10), effort=64)
    assert point.recall[10] >= least
    assert point.ms_per_query > 0 < point.ms_alone


def test_more_effort_finds_more(queries, tmp_path):
    many = np.random.default_rng(2).standard_normal((4000, 12)).astype(np.float32)
    build(many, tmp_path / "index", options=IndexOptions(kind="ivfflat", nlist=32))
    index, expected = VectorIndex.open(tmp_path / "index"), nearest(many, queries, 10)[0]
    low, high, all_lists = (measure(index, queries, expected, lengths=(10,), effort=e).recall[10] for e in (1, 8, 32))
    assert low < high <= all_lists == 1.0


def test_recall_counts_items_of_the_same_query():
    wanted = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[2, 1], [4, 3]]), wanted) == 1.0
    assert recall(np.array([[3, 4], [1, 2]]), wanted) == 0.0
    assert recall(np.array([[1, -1], [-1, 9]]), wanted) == 0.25
    assert recall(np.array([[1, 2]]), np.array([[1, -1]])) == 1.0


def test_queries_that_do_not_fit(vectors, queries, tmp_path):
    index = built(vectors, tmp_path / "index")
    with pytest.raises(InputError, match=r"vectors of 12 numbers, a query has shape \[20, 9\]"):
        index.search(queries[:, :9], 5)
    for depth in (0, 501):
        with pytest.raises(InputError, match=rf"{depth} items asked for, it holds 1 \.\. 500"):
            index.search(queries, depth)
    with pytest.raises(InputError, match="not finite"):
        index.search(np.full((1, 12), np.inf, np.float32), 5)


def test_an_index_of_another_run_is_refused(vectors, tmp_path):
    build(vectors, tmp_path / "index", belongs_to=RUN)
    VectorIndex.open(tmp_path / "index", belongs_to=RUN)
    with pytest.raises(InputError, match="was built from another run or checkpoint: step 7, and here it is 8; build"):
        VectorIndex.open(tmp_path / "index", belongs_to=RUN | {"step": "8"})


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("held_bytes", [0, np.inf])
def test_damaged_files(vectors, queries, tmp_path, kind, held_bytes):
    folder = tmp_path / "index"
    build(vectors, folder, options=IndexOptions(kind=kind, links=4), shard_items=300)
    second = folder / "shard-00001-part-0.faiss"
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{second.name}: has {len(content) - 1} bytes, expected {len(content)}"):
        VectorIndex.open(folder)
    second.write_bytes(content[:-1] + b"\x55")
    VectorIndex.open(folder)
    with pytest.raises(InputError, match=rf"{second.name}: its content has changed"):
        VectorIndex.open(folder, verify=True)
    second.write_bytes(b"x" * len(content))
    with pytest.raises(InputError, match=rf"{second.name}: faiss cannot read it"):
        VectorIndex.open(folder, held_bytes=held_bytes).search(queries, 5)
    second.unlink()
    with pytest.raises(InputError, match=f"{second.name} is missing"):
        VectorIndex.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema_version is 9, this code reads 1"),
        ({"num_items": 501}, "its shards are not those of 501 items"),
        ({"num_items": "500"}, "num_items: input should be a valid integer"),
        ({"shards": []}, "its shards are not those of 500 items"),
        ({"metric": "l2"}, "metric: input should be 'inner product'"),
        ({"more": 1}, "more: extra inputs are not permitted"),
    ],
)
def test_a_damaged_manifest(vectors, tmp_path, change, message):
    built(vectors, tmp_path / "index")
    file = tmp_path / "index" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        VectorIndex.open(tmp_path / "index")
    for content in ("{", "[]", "{}", '{"schema_version": 1'):
        file.write_text(content)
        with pytest.raises(InputError, match=r"manifest\.json: not the manifest of an index, or truncated"):
            VectorIndex.open(tmp_path / "index")


def test_without_faiss_the_message_names_the_command(vectors, tmp_path, monkeypatch):
    built(vectors, tmp_path / "index")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        VectorIndex.open(tmp_path / "index")
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        build(vectors, tmp_path / "new")

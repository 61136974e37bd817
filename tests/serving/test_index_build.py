"""An index is built in shards and searched; shards change nothing; a damaged or unfinished one gives one clear line."""

import json
import sys

import numpy as np
import pytest

from contracts.errors import InputError
from serving.index.build import build_index
from serving.index.kinds import IndexOptions
from serving.index.recall import measure, recall
from serving.index.search import VectorIndex
from tests.serving.index_cases import blocks_from, built

RUN = {"run": "runs/a", "step": "7"}


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(1).standard_normal((20, 12)).astype(np.float32)


def exact(vectors, queries, depth):
    scores = queries @ vectors.T
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return ids, np.take_along_axis(scores, ids, 1)


def build(vectors, folder, **more):
    return build_index(blocks_from(vectors), folder, num_items=len(vectors), widths=[vectors.shape[1]], **more)


@pytest.mark.parametrize("held_bytes", [0, np.inf])
@pytest.mark.parametrize("shard_items", [1, 77, 500])
def test_a_flat_index_finds_the_exact_items_for_any_shards(vectors, queries, tmp_path, shard_items, held_bytes):
    few = vectors[:40] if shard_items == 1 else vectors
    build(few, tmp_path / "index", shard_items=shard_items)
    index = VectorIndex.open(tmp_path / "index", verify=True, held_bytes=held_bytes)
    for depth in (1, 9, len(few)):
        ids, scores = index.search(queries, depth)
        expected, values = exact(few, queries, depth)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(scores, values, rtol=1e-5, atol=1e-5)
    chosen = np.array([39, 0, 17])
    np.testing.assert_array_equal(index.vectors_of(chosen), few[chosen])


def test_parts_are_searched_by_themselves(vectors, queries, tmp_path):
    index = built(vectors, tmp_path / "index", widths=[4, 8], shard_items=200)
    for part, columns in enumerate((slice(0, 4), slice(4, 12))):
        ids, _ = index.search(queries, 5, part=part)
        np.testing.assert_array_equal(ids, exact(vectors[:, columns], queries[:, columns], 5)[0])
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
    point = measure(index, queries, exact(vectors, queries, 10)[0], (1, 10), effort=64)
    assert point.recall[10] >= least
    assert point.ms_per_query > 0


def test_more_effort_finds_more(queries, tmp_path):
    many = np.random.default_rng(2).standard_normal((4000, 12)).astype(np.float32)
    build(many, tmp_path / "index", options=IndexOptions(kind="ivfflat", nlist=32))
    index, expected = VectorIndex.open(tmp_path / "index"), exact(many, queries, 10)[0]
    low, high, all_lists = (measure(index, queries, expected, (10,), effort=e).recall[10] for e in (1, 8, 32))
    assert low < high <= all_lists == 1.0


def test_recall_counts_items_of_the_same_query():
    wanted = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[2, 1], [4, 3]]), wanted) == 1.0
    assert recall(np.array([[3, 4], [1, 2]]), wanted) == 0.0
    assert recall(np.array([[1, -1], [-1, 9]]), wanted) == 0.25
    assert recall(np.array([[1, 2]]), np.array([[1, -1]])) == 1.0


def test_clusters_do_not_depend_on_blocks_or_on_a_second_build(vectors, queries, tmp_path):
    found = []
    for number, size in enumerate((7, 100)):
        folder = tmp_path / str(number)
        options = IndexOptions(kind="ivfpq", nlist=4, nbits=4, sample_items=300)
        build_index(blocks_from(vectors, size), folder, num_items=500, widths=[12], options=options, shard_items=200)
        found.append(VectorIndex.open(folder).search(queries, 10, effort=2)[0])
    np.testing.assert_array_equal(*found)


class Killed(BaseException):
    pass


def killed_after(vectors, item):
    def read(start, stop):
        for first, block in blocks_from(vectors)(start, stop):
            if first + len(block) > item:
                raise Killed
            yield first, block

    return read


@pytest.mark.parametrize("kind", ["flat", "ivfflat"])
def test_a_killed_build_does_not_open_and_the_next_keeps_its_shards(vectors, queries, tmp_path, kind):
    folder, read = tmp_path / "index", []

    def counted(start, stop):
        read.append((start, stop))
        return blocks_from(vectors)(start, stop)

    def passes(start, stop):  # the pass for the sample ends; the pass for the third shard does not
        return (counted if (start, stop) == (0, 500) else killed_after(vectors, 250))(start, stop)

    arguments = {"num_items": 500, "widths": [12], "options": IndexOptions(kind=kind, nlist=4), "shard_items": 100}
    with pytest.raises(Killed):
        build_index(passes, folder, belongs_to=RUN, **arguments)
    with pytest.raises(InputError, match=r"has no manifest\.json, so it is not a finished index"):
        VectorIndex.open(folder)
    read.clear()
    build_index(counted, folder, belongs_to=RUN, **arguments)
    assert read == [(200, 300), (300, 400), (400, 500)]
    whole = tmp_path / "whole"
    build_index(counted, whole, belongs_to=RUN, **arguments)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {f.name: f.read_bytes() for f in whole.iterdir()}


@pytest.mark.parametrize("other", [{"belongs_to": {"run": "runs/b", "step": "7"}}, {"belongs_to": None}])
def test_a_build_of_another_run_keeps_nothing(vectors, queries, tmp_path, other):
    with pytest.raises(Killed):
        build_index(killed_after(-vectors, 250), tmp_path, num_items=500, widths=[12], shard_items=100, belongs_to=RUN)
    assert len(list(tmp_path.glob("*.faiss"))) == 2
    build(vectors, tmp_path, shard_items=100, **other)
    np.testing.assert_array_equal(VectorIndex.open(tmp_path).search(queries, 5)[0], exact(vectors, queries, 5)[0])


def test_folders_that_are_taken(vectors, tmp_path):
    build(vectors, tmp_path / "index")
    with pytest.raises(InputError, match="holds a finished index"):
        build(vectors, tmp_path / "index")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds index, which no index has|holds notes\.txt, which no index has"):
        build(vectors, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        build(vectors, tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_vectors_of_another_width_or_not_finite(vectors, tmp_path):
    with pytest.raises(InputError, match="vectors of item 0 have 12 numbers, the index has 10"):
        build_index(blocks_from(vectors), tmp_path / "a", num_items=500, widths=[10])
    bad = vectors.copy()
    bad[30, 2] = np.nan
    with pytest.raises(FloatingPointError, match=r"items 28\.\.34"):
        build(bad, tmp_path / "b")
    with pytest.raises(ValueError, match="end at item 500, expected 600"):
        build_index(blocks_from(vectors), tmp_path / "c", num_items=600, widths=[12])


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
    with pytest.raises(InputError, match="belongs to .*'step': '7'.*, not to .*'step': '8'"):
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
        ({"more": 1}, "more: extra inputs are not permitted"),
    ],
)
def test_a_damaged_manifest(vectors, tmp_path, change, message):
    built(vectors, tmp_path / "index")
    file = tmp_path / "index" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        VectorIndex.open(tmp_path / "index")
    file.write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json: .*invalid json"):
        VectorIndex.open(tmp_path / "index")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "tree"}, "index kind 'tree': unknown; choose one of flat, hnsw, ivfflat, ivfpq"),
        ({"kind": "hnsw", "links": 1}, r"links=1: must be in 2 \.\. 256"),
        ({"kind": "ivfflat", "nlist": 501}, r"nlist=501: must be in 1 \.\. 500"),
        ({"kind": "ivfpq", "code_width": 5}, "code_width=5: must divide the width"),
        ({"kind": "ivfpq", "nbits": 9}, r"nbits=9: must be in 1 \.\. 8"),
        ({"kind": "ivfpq", "sample_items": 100}, r"sample_items=100: must be in 256 \.\. 500"),
    ],
)
def test_options_out_of_range(vectors, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        build(vectors, tmp_path / "index", options=IndexOptions(**options))
    assert not (tmp_path / "index").exists()


def test_too_few_items_for_codes(vectors, tmp_path):
    with pytest.raises(InputError, match="learns 256 codes .*only 100 items; use kind flat"):
        build(vectors[:100], tmp_path / "index", options=IndexOptions(kind="ivfpq"))


def test_without_faiss_the_message_names_the_command(vectors, tmp_path, monkeypatch):
    built(vectors, tmp_path / "index")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        VectorIndex.open(tmp_path / "index")
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        build(vectors, tmp_path / "new")

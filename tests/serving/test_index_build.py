"""An index is built in shards, and a killed build goes on where it was; bad options give one clear line."""

import numpy as np
import pytest

from contracts.errors import InputError
from serving.index.blocks import has_these_vectors
from serving.index.build import build_index
from serving.index.kinds import IndexOptions
from serving.index.search import VectorIndex
from tests.serving.index_cases import RUN, blocks_from, build, nearest


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
def test_a_killed_build_does_not_open_and_the_next_keeps_its_shards(vectors, tmp_path, kind):
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


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfflat"])
@pytest.mark.parametrize("damage", ["gone", "cut", "one byte"])
def test_a_damaged_index_is_repaired_by_the_next_build(vectors, tmp_path, caplog, kind, damage):
    folder, read = tmp_path / "index", []

    def counted(start, stop):
        read.append((start, stop))
        return blocks_from(vectors)(start, stop)

    options = IndexOptions(kind=kind, **({"nlist": 4} if kind == "ivfflat" else {}))
    arguments = {"num_items": 500, "widths": [12], "options": options, "shard_items": 100, "belongs_to": RUN}
    build_index(counted, folder, **arguments)
    expected = {f.name: f.read_bytes() for f in folder.iterdir()}
    file = folder / "shard-00003-part-0.faiss"
    whole = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(whole[:-9] if damage == "cut" else whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    read.clear()
    build_index(counted, folder, **arguments)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == expected
    assert "1 of 5 shards are damaged and built again" in caplog.text
    assert read == [(300, 400)] or kind == "ivfflat"  # its shards share clusters, so all of them are built again
    read.clear()
    build_index(counted, folder, **arguments)
    assert read == []


@pytest.mark.parametrize("other", [{"belongs_to": {"run": "runs/b", "step": "7"}}, {"belongs_to": None}])
def test_a_build_of_another_run_keeps_nothing(vectors, queries, tmp_path, other):
    with pytest.raises(Killed):
        build_index(killed_after(-vectors, 250), tmp_path, num_items=500, widths=[12], shard_items=100, belongs_to=RUN)
    assert len(list(tmp_path.glob("*.faiss"))) == 2
    build(vectors, tmp_path, shard_items=100, **other)
    np.testing.assert_array_equal(VectorIndex.open(tmp_path).search(queries, 5)[0], nearest(vectors, queries, 5)[0])


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
    with pytest.raises(InputError, match=r"learns 256 codes .*only 100 items; use kind flat"):
        build(vectors[:100], tmp_path / "index", options=IndexOptions(kind="ivfpq"))


def test_an_index_knows_the_vectors_that_it_was_built_from(vectors, tmp_path):
    manifest = build(vectors, tmp_path / "index", shard_items=200)
    assert has_these_vectors(manifest, blocks_from(vectors, 33))
    other = vectors.copy()
    other[450, 3] = np.nextafter(other[450, 3], 9)
    assert not has_these_vectors(manifest, blocks_from(other))
    with pytest.raises(InputError, match="vectors of item 0 have 11 numbers, the index has 12"):
        has_these_vectors(manifest, blocks_from(vectors[:, :11]))

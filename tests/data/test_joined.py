"""Several datasets as one: the same arrays as one dataset on disk, without reading them, and one error for a misfit."""

import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.dataset import Dataset, DatasetContent, Sequences, write_dataset
from data.joined import JoinedDataset, open_datasets
from data.sequences import gather_histories, repeats_history, target_items
from data.validation import validate_dataset
from storage.fingerprints import joined_digest
from tests.data.two_datasets import StoredRows


@pytest.fixture
def two(two_domains):
    return two_domains, *(Dataset.open(f"{two_domains}/{name}") for name in ("A", "B", "one"))


def tiny(path, *, num_items=3, text=None, encoder=None, item_texts=None, times=True, cold=None):
    """Write a dataset of two users."""
    return write_dataset(
        str(path),
        DatasetContent(
            sequences=Sequences(
                offsets=np.array([0, 3, 6]),
                items=np.array([0, 1, 2, 2, 1, 0]) % num_items,
                timestamps=np.arange(6) if times else None,
                train_end=np.array([1, 1]),
                valid_end=np.array([2, 2]),
            ),
            user_source_ids=pa.array([f"u of {path.name}", "v"], pa.large_string()),  # fingerprints differ
            item_source_ids=pa.array([f"i{number}" for number in range(num_items)], pa.large_string()),
            item_texts=None if item_texts is None else pa.array(item_texts, pa.large_string()),
            item_columns=None if cold is None else pa.table({"cold": cold}),
            features={} if text is None else {"text": StoredRows(np.ones((num_items, text), np.float32), encoder)},
        ),
    )


def test_everything_is_what_one_dataset_on_disk_has(two):
    folder, _, b, one = two
    joined = open_datasets([f"{folder}/A", f"{folder}/B"])
    assert isinstance(joined, JoinedDataset)
    for name in ("num_users", "num_items", "num_interactions", "modalities"):
        assert getattr(joined, name) == getattr(one, name), name
    for name in ("offsets", "items", "timestamps", "train_end", "valid_end"):
        found = getattr(joined, name)
        assert found.dtype == np.int64, name
        assert np.array_equal(found, getattr(one, name)), name
    for name in one.modalities:
        found = joined.features(name)
        assert found.dtype == one.features(name).dtype
        assert np.array_equal(found, one.features(name))
        assert np.array_equal(joined.presence(name), one.presence(name))
    assert (joined.features("image").dtype, joined.features("text").dtype) == (np.float16, np.float32)
    assert np.array_equal(joined.popularity(), one.popularity())
    assert joined.item_source_ids().equals(one.item_source_ids())
    assert joined.user_source_ids().equals(one.user_source_ids())
    assert joined.item_source_ids()[40].as_py() == f"B/{b.item_source_ids()[0]}"
    assert joined.item_texts().equals(one.item_texts())
    assert joined.cold_items() is None
    joined.validate()
    validate_dataset(one)


def test_sequences_are_read_in_any_order_of_users(two):
    folder, _, _, one = two
    joined = open_datasets([f"{folder}/A", f"{folder}/B"])
    users = np.random.default_rng(0).integers(0, one.num_users, 200)
    positions = np.diff(one.offsets)[users] - 1
    for read in (target_items, repeats_history):
        assert np.array_equal(read(joined, users, positions), read(one, users, positions))
    for found, expected in zip(
        gather_histories(joined, users, positions, 5), gather_histories(one, users, positions, 5), strict=True
    ):
        assert np.array_equal(found, expected)


def test_it_says_where_each_dataset_is_and_which_come_first(two):
    folder, a, b, _ = two
    joined = open_datasets([f"{folder}/A", f"{folder}/B"])
    places = [
        (d.name, d.path, d.fingerprint, d.first_user, d.num_users, d.first_item, d.num_items) for d in joined.domains
    ]
    assert places == [
        ("A", f"{folder}/A", a.fingerprint, 0, 60, 0, 40),
        ("B", f"{folder}/B", b.fingerprint, 60, 50, 40, 45),
    ]
    assert joined.parts[1].fingerprint == b.fingerprint
    assert joined.path == f"[{folder}/A,{folder}/B]"
    assert joined.ancestors == {a.fingerprint: 40}
    assert joined.fingerprint != open_datasets([f"{folder}/B", f"{folder}/A"]).fingerprint
    assert open_datasets([f"{folder}/A"]).fingerprint == a.fingerprint == joined_digest([a.fingerprint])
    assert a.parts == (a,)
    assert (a.domains[0].num_items, a.ancestors, a.encoders) == (40, {}, {})


def test_of_three_datasets_the_first_two_are_an_ancestor(two, tmp_path):
    folder, a, _, _ = two
    tiny(tmp_path / "C")
    paths = [f"{folder}/A", f"{folder}/B", str(tmp_path / "C")]
    first = open_datasets(paths[:2])
    joined = open_datasets(paths)
    assert joined.ancestors == {a.fingerprint: 40, first.fingerprint: 85}
    assert np.array_equal(joined.items[: len(first.items)], first.items)


def test_it_is_pickled_as_paths(two):
    folder, _, _, one = two
    packed = pickle.dumps(open_datasets([f"{folder}/A", f"{folder}/B"]))
    assert len(packed) < 400
    assert np.array_equal(pickle.loads(packed).items, one.items)  # noqa: S301


def test_equal_names_get_numbers_and_what_one_lacks_is_empty(tmp_path):
    (tmp_path / "x").mkdir(), (tmp_path / "y").mkdir()
    tiny(tmp_path / "x/D", item_texts=["one", None, "three"], cold=[False, True, False])
    tiny(tmp_path / "y/D", num_items=2, text=4, times=False)
    tiny(tmp_path / "D-2", text=4)
    joined = open_datasets([str(tmp_path / name) for name in ("x/D", "D-2", "y/D")])
    assert [domain.name for domain in joined.domains] == ["D", "D-2", "D-3"]
    assert joined.item_texts().to_pylist() == ["one", None, "three", *[None] * 5]
    assert joined.cold_items().tolist() == [False, True, *[False] * 6]
    assert joined.timestamps is None
    assert joined.presence("text").tolist() == [False] * 3 + [True] * 5
    assert joined.features("text")[2:4].tolist() == [[0] * 4, [1] * 4]
    assert joined.user_source_ids().to_pylist() == ["D/u of D", "D/v", "D-2/u of D-2", "D-2/v", "D-3/u of D", "D-3/v"]
    with pytest.raises(InputError, match=r"none has a modality 'image', only text; prepare one again"):
        joined.features("image")


def test_one_dataset_named_twice_is_refused_also_from_a_copy(two, tmp_path):
    folder, a, _, _ = two
    shutil.copytree(folder / "A", tmp_path / "copy")
    for other in (folder / "A", tmp_path / "copy"):
        with pytest.raises(InputError) as error:
            open_datasets([f"{folder}/A", f"{folder}/B", str(other)])
        assert str(error.value) == (
            f"dataset=[{folder}/A,{folder}/B,{other}]: {folder}/A and {other} are the same dataset (fingerprint "
            f"{a.fingerprint[:12]}), whose users would count twice; name it once"
        )


def test_vectors_that_cannot_be_compared_are_refused(tmp_path):
    minilm = {"name": "minilm", "revision": "1"}
    tiny(tmp_path / "plain")
    tiny(tmp_path / "wide", text=8)
    tiny(tmp_path / "one", text=4, encoder=minilm)
    tiny(tmp_path / "same", text=4, encoder=minilm | {"name": "a copy of it"}, num_items=2)
    tiny(tmp_path / "unknown", text=4)
    tiny(tmp_path / "other", text=4, encoder=minilm | {"revision": "2"})
    joined = open_datasets([str(tmp_path / name) for name in ("plain", "unknown", "one", "same")])
    assert joined.encoders == Dataset.open(str(tmp_path / "one")).encoders
    with pytest.raises(InputError) as error:
        open_datasets([str(tmp_path / name) for name in ("plain", "one", "wide")])
    assert f"vectors of text have width 4 in {tmp_path}/one and 8 in {tmp_path}/wide; encode" in str(error.value)
    with pytest.raises(InputError) as error:
        open_datasets([str(tmp_path / name) for name in ("unknown", "one", "other")])
    message = str(error.value)
    for part in (
        f"in {tmp_path}/one: vectors of text are of the encoder minilm ",
        f"those of {tmp_path}/other of minilm",
    ):
        assert part in message
    assert "encode the items of both with the same encoder and settings" in message
    assert "--reuse" not in message


def test_vectors_of_two_fits_of_tfidf_are_refused_with_a_way_out(tmp_path):
    for revision in ("1", "2"):
        tiny(tmp_path / revision, text=4, encoder={"name": "tfidf", "revision": revision})
    with pytest.raises(InputError, match="TF-IDF learns from the texts, so encode the items of one with --reuse"):
        open_datasets([str(tmp_path / revision) for revision in ("1", "2")])


def test_an_altered_file_of_any_dataset_is_found(two, tmp_path):
    folder, _, _, _ = two
    shutil.copytree(folder / "B", tmp_path / "B")
    joined = open_datasets([f"{folder}/A", str(tmp_path / "B")])
    table = pq.read_table(tmp_path / "B/users.parquet")
    ids = table.column("source_id").to_pylist()
    pq.write_table(
        table.set_column(1, "source_id", pa.array(ids[::-1], pa.large_string())), tmp_path / "B/users.parquet"
    )
    with pytest.raises(InputError, match=r"/B: its content has fingerprint"):
        joined.validate()

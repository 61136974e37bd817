"""The contract on disk: what is written is read back, and every violation is named."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts import modalities
from contracts.errors import InputError
from data import layout, validation
from data.dataset import Dataset, write_dataset
from data.prepare.features import AlignedRows
from data.writing import Sequences, write_manifest, write_sequences
from tests.data.small_files import small_content, small_dataset


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    content = small_content()
    dataset = small_dataset(tmp_path / "d")
    dataset.validate()
    dataset.verify_fingerprint()
    assert (dataset.num_users, dataset.num_items, dataset.num_interactions) == (4, 6, 14)
    assert dataset.modalities == ("image",)
    for name in ("offsets", "items", "timestamps", "train_end", "valid_end"):
        actual = getattr(dataset, name)
        np.testing.assert_array_equal(actual, getattr(content.sequences, name))
        assert actual.dtype == np.int64
        assert not actual.flags.writeable
        assert not actual.flags.owndata
    assert dataset.presence("image").tolist() == [True, True, False, True, True, False]
    assert isinstance(dataset.features("image"), np.memmap)
    assert dataset.item_source_ids().to_pylist() == [f"i{i}" for i in range(6)]
    assert dataset.user_source_ids().to_pylist() == [f"u{i}" for i in range(4)]
    texts = dataset.item_texts()
    assert texts is not None
    assert texts.to_pylist()[:2] == [None, "text 1"]
    # Training: 0 1 | 3 | 4 0 4 | 5
    assert dataset.popularity().tolist() == [2, 1, 0, 1, 2, 1]
    assert dataset.manifest["dropped"] == {"duplicates": 3}
    assert dataset.manifest["modalities"]["image"] == {"dim": 4, "dtype": "float32", "num_present": 4}


def test_optional_parts_may_be_absent(tmp_path: Path) -> None:
    content = small_content()
    content = replace(content, item_texts=None, features={}, sequences=replace(content.sequences, timestamps=None))
    dataset = write_dataset(str(tmp_path / "d"), content)
    dataset.validate()
    assert dataset.timestamps is None
    assert dataset.item_texts() is None
    assert dataset.modalities == ()
    assert not dataset.manifest["has_timestamps"]
    with pytest.raises(InputError, match="no modality 'image', only none"):
        dataset.features("image")


def test_fingerprint_follows_content_and_pickle_follows_path(tmp_path: Path) -> None:
    first, second = small_dataset(tmp_path / "a"), small_dataset(tmp_path / "b")
    other = write_dataset(str(tmp_path / "c"), small_content([[0, 1, 2, 3], [3, 2, 1], [4, 0, 4, 0, 1], [5, 2]]))
    assert first.fingerprint == second.fingerprint != other.fingerprint
    again = pickle.loads(pickle.dumps(first))  # noqa: S301
    assert again.path == first.path
    np.testing.assert_array_equal(again.items, first.items)


# violations of the content, each written as a well-formed file


def _rewrite_sequences(folder: Path, **changed: np.ndarray) -> None:
    write_sequences(folder / layout.SEQUENCES, replace(small_content().sequences, **changed))


def _rewrite_items(folder: Path, **changed: list[object]) -> None:
    table = pq.read_table(folder / layout.ITEMS)
    for name, values in changed.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, folder / layout.ITEMS)


def _rewrite_image(folder: Path, row: int, column: int, value: float) -> None:
    features = np.load(folder / "features/image.npy")
    features[row, column] = value
    np.save(folder / "features/image.npy", features)


def _sequence(name: str, position: int, value: int) -> np.ndarray:
    array = getattr(small_content().sequences, name).copy()
    array[position] = value
    return array


def _rewrite_users(folder: Path) -> None:
    pq.write_table(
        pa.table({"user": [0, 1, 3, 4], "source_id": pa.array(list("abcd"), pa.large_string())}), folder / layout.USERS
    )


VIOLATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "item id too large": (
        lambda f: _rewrite_sequences(f, items=_sequence("items", 5, 6)),
        r"sequences\.arrow: user 1 has item 6, ids go from 0 to 5; prepare",
    ),
    "negative item id": (lambda f: _rewrite_sequences(f, items=_sequence("items", 0, -1)), "user 0 has item -1"),
    "empty history": (
        lambda f: _rewrite_sequences(f, offsets=_sequence("offsets", 2, 4)),
        r"sequences\.arrow: user 1 has 0 items, at least 1 is needed",
    ),
    "unsorted times": (
        lambda f: _rewrite_sequences(f, timestamps=_sequence("timestamps", 9, 7)),
        "timestamps of user 2 fall from 101 to 7, they must ascend",
    ),
    "unsorted times at the end of a user": (
        lambda f: _rewrite_sequences(f, timestamps=_sequence("timestamps", 13, 7)),
        "timestamps of user 3 fall from 100 to 7",
    ),
    "train after valid": (
        lambda f: _rewrite_sequences(f, train_end=_sequence("train_end", 1, 3)),
        "user 1 has train_end 3 and valid_end 2 of 3 items, expected 0 <= train_end",
    ),
    "valid after the end": (
        lambda f: _rewrite_sequences(f, valid_end=_sequence("valid_end", 3, 9)),
        "user 3 has train_end 1 and valid_end 9 of 2 items",
    ),
    "NaN feature": (lambda f: _rewrite_image(f, 3, 2, np.nan), r"image\.npy: row 3, column 2 is nan, features must"),
    "infinite feature": (lambda f: _rewrite_image(f, 4, 0, -np.inf), r"image\.npy: row 4, column 0 is -inf"),
    "present but zero": (
        lambda f: _rewrite_items(f, has_image=[True] * 6),
        r"items\.parquet: item 2 has has_image True but an all-zero row",
    ),
    "absent but not zero": (lambda f: _rewrite_image(f, 5, 1, 1.0), "item 5 has has_image False but a feature row"),
    "popularity": (
        lambda f: _rewrite_items(f, popularity=[2, 1, 0, 1, 3, 1]),
        r"items\.parquet: item 4 has popularity 3, its training interactions are 2",
    ),
    "item gap": (
        lambda f: _rewrite_items(f, item=[0, 1, 2, 4, 5, 6]),
        r"items\.parquet: row 3 is item 4, expected 3: ids have a gap",
    ),
    "null source id": (
        lambda f: _rewrite_items(f, source_id=["a", "b", None, "d", "e", "f"]),
        r"items\.parquet: column source_id has a null in row 2;",
    ),
    "user gap": (_rewrite_users, r"users\.parquet: row 2 is user 3, expected 2: ids have a gap"),
}


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_validate_names_the_violation(name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_BLOCK", block)
    monkeypatch.setattr(validation, "block_length", lambda _dim: block)
    violate, message = VIOLATIONS[name]
    path = tmp_path / "d"
    small_dataset(path).validate()
    violate(path)
    write_manifest(path, json.loads((path / layout.MANIFEST).read_text()))
    dataset = Dataset.open(str(path))
    with pytest.raises(InputError, match=message):
        dataset.validate()


# violations of the files, found when opening


@pytest.mark.parametrize("file", [layout.SEQUENCES, layout.ITEMS, layout.USERS, "features/image.npy"])
@pytest.mark.parametrize("manifest_agrees", [False, True])
def test_a_truncated_file_is_named(file: str, manifest_agrees: bool, tmp_path: Path) -> None:
    path = tmp_path / "d"
    small_dataset(path)
    size = (path / file).stat().st_size
    for left in (0, 5, size // 2, size - 1):
        content = (path / file).read_bytes()
        os.truncate(path / file, left)
        if manifest_agrees:
            write_manifest(path, json.loads((path / layout.MANIFEST).read_text()))
        with pytest.raises(InputError, match=rf"{re.escape(file)}: .*prepare") as caught:
            Dataset.open(str(path))
        assert ("bytes, the manifest says" in str(caught.value)) != manifest_agrees
        (path / file).write_bytes(content)


def test_a_missing_file_manifest_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; write it with jobs/prepare_data\.py"):
        Dataset.open(str(tmp_path / "none"))
    path = tmp_path / "d"
    small_dataset(path)
    (path / layout.USERS).rename(path / "elsewhere")
    with pytest.raises(InputError, match=r"users\.parquet: missing"):
        Dataset.open(str(path))
    (path / layout.MANIFEST).write_text('{"schema_version": 2}')
    with pytest.raises(InputError, match="schema_version is 2, this code reads 1"):
        Dataset.open(str(path))
    (path / layout.MANIFEST).write_text('{"schema_ver')
    with pytest.raises(InputError, match="not valid JSON"):
        Dataset.open(str(path))
    (path / layout.MANIFEST).unlink()
    with pytest.raises(InputError, match="not a finished dataset"):
        Dataset.open(str(path))
    with pytest.raises(InputError, match="scheme 'ftp' is not supported"):
        Dataset.open("ftp://bucket/d")


def test_features_of_another_shape_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d"
    small_dataset(path)
    np.save(path / "features/image.npy", np.ones((5, 4), np.float32))
    write_manifest(path, json.loads((path / layout.MANIFEST).read_text()))
    with pytest.raises(InputError, match=r"image\.npy: holds float32 \[5, 4\], the manifest says float32 \[6, 4\]"):
        Dataset.open(str(path))


def test_an_altered_byte_changes_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "d"
    dataset = small_dataset(path)
    content = bytearray((path / "features/image.npy").read_bytes())
    content[-1] ^= 1
    (path / "features/image.npy").write_bytes(content)
    with pytest.raises(InputError, match="a file was altered"):
        dataset.verify_fingerprint()


# the output folder


def test_an_existing_output_is_refused_and_overwrite_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "d"
    old = small_dataset(path)
    with pytest.raises(InputError, match="exists and is not empty; name another or pass --overwrite"):
        write_dataset(str(path), small_content())
    new = write_dataset(str(path), small_content([[1, 2, 3]]), overwrite=True)
    new.validate()
    assert new.num_users == 1
    assert old.items[:4].tolist() == [0, 1, 2, 3]  # an open map outlives the replacement
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


def test_overwrite_never_removes_what_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds files that are not a dataset"):
        write_dataset(str(tmp_path), small_content(), overwrite=True)
    with pytest.raises(InputError, match="not a plain folder"):
        write_dataset(str(tmp_path / "thesis.tex"), small_content(), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_failure_midway_leaves_the_old_dataset_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "d"
    before = small_dataset(path).fingerprint
    bad = np.ones((6, 4), np.float32)
    bad[5, 3] = np.nan
    content = replace(small_content(), features={"image": AlignedRows(bad, "bad.npy")})
    with pytest.raises(InputError, match=r"bad\.npy: row 5, column 3 is nan"):
        write_dataset(str(path), content, overwrite=True)
    Dataset.open(str(path)).verify_fingerprint()
    assert Dataset.open(str(path)).fingerprint == before
    with pytest.raises(InputError, match=r"bad\.npy"):
        write_dataset(str(tmp_path / "new"), content)
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


def test_a_refused_rename_brings_the_old_dataset_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d"
    before = small_dataset(path).fingerprint
    replace_path = os.replace

    def refuse_new(source: Path, target: Path) -> None:
        if source.suffix == ".unfinished":
            raise OSError(13, "Permission denied", str(source))
        replace_path(source, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(InputError, match="Permission denied"):
        write_dataset(str(path), small_content([[1, 2, 3]]), overwrite=True)
    dataset = Dataset.open(str(path))
    dataset.verify_fingerprint()
    assert dataset.fingerprint == before
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


def test_a_full_disk_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "items.parquet")

    monkeypatch.setattr("data.writing.write_sequences", full)
    with pytest.raises(InputError, match=r"cannot be written \(items\.parquet: No space left on device\)"):
        write_dataset(str(tmp_path / "d"), small_content())
    assert list(tmp_path.iterdir()) == []


def test_modality_names_are_file_names(tmp_path: Path) -> None:
    content = replace(small_content(), features={"../x": AlignedRows(np.ones((6, 2), np.float32), "x.npy")})
    with pytest.raises(InputError, match=r"modality name '\.\./x'"):
        write_dataset(str(tmp_path / "d"), content)


def test_popularity_counts_training_only() -> None:
    sequences = Sequences(
        offsets=np.array([0, 3, 5]),
        items=np.array([2, 2, 1, 0, 2]),
        timestamps=None,
        train_end=np.array([2, 0]),
        valid_end=np.array([2, 1]),
    )
    assert sequences.popularity(4).tolist() == [0, 0, 2, 0]


def test_a_dataset_from_before_a_name_was_reserved_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = small_content()
    rows = content.features["image"]
    renamed = replace(content, features={"id": rows})
    with pytest.raises(InputError, match="'id'"):
        write_dataset(str(tmp_path / "new"), renamed)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(modalities, "RESERVED", ())
    write_dataset(str(tmp_path / "old"), renamed)
    monkeypatch.undo()
    old = Dataset.open(str(tmp_path / "old"))
    old.validate()
    assert old.modalities == ("id",)
    assert old.presence("id").tolist() == [True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a b",), "'a b'"), (("id",), "'id'"), (("text", "Text"), "differ only by case"), (("ID", "image"), None)],
)
def test_names_of_new_modalities(names: tuple[str, ...], said: str | None) -> None:
    if said is None:
        modalities.check_new_modalities(names)
        return
    with pytest.raises(InputError, match=said):
        modalities.check_new_modalities(names)

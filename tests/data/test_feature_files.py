"""Feature files of a UniSRec folder, found by name, and files of ids read as tables are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.dataset import write_dataset
from data.prepare.pipeline import unisrec_content
from jobs.prepare_data import prepare
from tests.data.small_files import write_unisrec

ITEMS = 5
EVERYTHING = {"min_user_interactions": 1, "min_item_interactions": 1}


def folder_called(path: Path, name: str = "Toy") -> Path:
    """A folder of five items whose files begin with this name."""
    write_unisrec(path, [[0, 1, 2, 3, 4], [3, 2, 1]])
    for file in list(path.iterdir()):
        file.rename(path / file.name.replace("Toy.", f"{name}.", 1))
    return path


def vectors(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ITEMS, width)).astype(np.float32)


def features_of(folder: Path, output: Path) -> dict[str, np.ndarray]:
    dataset = write_dataset(str(output), unisrec_content(str(folder), {}, {}))
    dataset.validate()
    return {modality: np.array(dataset.features(modality)) for modality in dataset.modalities}


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        unisrec_content(str(folder), {}, {})


@pytest.mark.parametrize("name", ["Sci[5]", "Sci*", "Sci?", "a.b", "Sci[!x]"])
def test_any_name_finds_its_features(name: str, tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in", name)
    np.save(folder / f"{name}.text_minilm.npy", vectors(3))
    np.save(folder / "image.npy", vectors(2))
    (folder / "image.npy").rename(folder / f"{name}.image.NPY")
    found = features_of(folder, tmp_path / "out")
    np.testing.assert_array_equal(found["text"], vectors(3))
    np.testing.assert_array_equal(found["image"], vectors(2))


@pytest.mark.parametrize("width", [512, 768])
def test_raw_float32_files_of_unisrec_and_missrec(width: int, tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    vectors(width).tofile(folder / "Toy.feat1CLS")
    vectors(width, 1).tofile(folder / "Toy.feat3CLS")
    found = features_of(folder, tmp_path / "out")
    np.testing.assert_array_equal(found["text"], vectors(width))
    np.testing.assert_array_equal(found["image"], vectors(width, 1))


def test_a_raw_file_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    np.zeros((ITEMS + 1, 768), np.float32).tofile(folder / "Toy.feat1CLS")
    refused(folder, r"Toy\.feat1CLS: holds 18432 bytes, expected 5 items x 768 or 512 .*float32; .*write .* as \.npy")
    (folder / "Toy.feat1CLS").write_bytes(b"")
    refused(folder, r"Toy\.feat1CLS: holds 0 bytes")


def test_a_raw_file_can_be_named(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    vectors(768).tofile(folder / "Toy.feat2CLS")
    files = {"augmented": str(folder / "Toy.feat2CLS")}
    dataset = prepare("unisrec", str(tmp_path / "out"), str(folder), features=files)
    np.testing.assert_array_equal(dataset.features("augmented"), vectors(768))


def test_an_ids_file_says_how_many_rows_a_raw_file_has(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    vectors(512)[:2].tofile(tmp_path / "x.feat1CLS")
    (tmp_path / "x.ids").write_text("3\n1\n")
    files, ids = {"text": str(tmp_path / "x.feat1CLS")}, {"text": str(tmp_path / "x.ids")}
    dataset = prepare("unisrec", str(tmp_path / "out"), str(folder), features=files, feature_ids=ids)
    assert dataset.presence("text").tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(dataset.features("text")[[3, 1]], vectors(512)[:2])


@pytest.mark.parametrize(
    "name",
    [
        "Toy.feat2CLS",
        "Toy.feat1Mean2",
        "Toy.text.npz",
        "Toy.image.pt",
        "Toy.text_x.h5",
        "text.npy",
        "Other.text.npy",
        "Toy.1text.npy",
        "Toy.text.v2.npy",
        "x.NPY",
    ],
)
def test_what_is_plainly_a_feature_file_is_never_ignored(name: str, tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    (folder / name).write_bytes(b"\0" * 16)
    refused(folder, rf"{name}: .*--features MODALITY=FILE")


def test_parquet_features_beside_the_sequences_are_found(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    names = [str(item) for item in range(ITEMS)]
    table = pa.table({"item": names[::-1], "vector": pa.array(vectors(3)[::-1].tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, folder / "Toy.text.parquet")
    np.testing.assert_array_equal(features_of(folder, tmp_path / "out")["text"], vectors(3))


def test_parquet_features_without_the_name_of_the_dataset_are_refused(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    pq.write_table(pa.table({"item": ["0"], "vector": [[1.0]]}), folder / "text.parquet")
    refused(folder, r"text\.parquet: .*--features MODALITY=FILE")


def test_files_that_are_no_features_are_left_alone(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    for name in ("README.md", "Toy.pt_datasets", "Toy.text", "Toy.json", "notes.csv", ".Toy.text.npy"):
        (folder / name).write_text("item_id:token\ttext:token_seq\n" if name == "Toy.text" else "x")
    assert features_of(folder, tmp_path / "out") == {}


def test_two_files_for_one_modality_are_refused(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    np.save(folder / "Toy.text.npy", vectors(3))
    vectors(768).tofile(folder / "Toy.feat1CLS")
    refused(folder, r"both Toy\.feat1CLS and Toy\.text\.npy are features for text; choose with --features text=FILE")


def with_ids(folder: Path, ids: bytes, items: list[str]) -> list[list[float]]:
    """The features of a table's items where row n of the file is [n+1, 0]."""
    folder.mkdir()
    rows = np.zeros((len(items), 2), np.float32)
    rows[:, 0] = np.arange(len(items)) + 1
    np.save(folder / "text.npy", rows)
    (folder / "text.ids").write_bytes(ids)
    pq.write_table(
        pa.table({"user": ["u"] * len(items), "item": items, "timestamp": range(len(items))}), folder / "x.parquet"
    )
    dataset = prepare(
        "table",
        str(folder / "out"),
        str(folder / "x.parquet"),
        features={"text": str(folder / "text.npy")},
        feature_ids={"text": str(folder / "text.ids")},
        **EVERYTHING,
    )
    assert dataset.item_source_ids().to_pylist() == items
    return dataset.features("text").tolist()


@pytest.mark.parametrize(
    ("ids", "items"),
    [
        ("a\nb\nc\n", ["a", "b", "c"]),
        ("a\nb\nc", ["a", "b", "c"]),
        ("\ufeffa\nb\nc\n", ["a", "b", "c"]),
        ("a\r\nb\r\nc\r\n", ["a", "b", "c"]),
        ("a\nb\u2028b\nc\u0085\x0c\x1c\n", ["a", "b\u2028b", "c\u0085\x0c\x1c"]),
        ("a\nb \n c\n", ["a", "b ", " c"]),
        ('a\n"b"\nc,d\te\n', ["a", '"b"', "c,d\te"]),
        ("a\nb\nc\n\n\n", ["a", "b", "c"]),
    ],
)
def test_ids_files_are_read_as_tables_are(ids: str, items: list[str], tmp_path: Path) -> None:
    assert with_ids(tmp_path / "in", ids.encode(), items) == [[1, 0], [2, 0], [3, 0]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (b"a\n\nc\n", r"text\.ids: line 2 is empty; name the item of every feature row"),
        (b"\na\nb\nc\n", r"text\.ids: line 1 is empty; name the item of every feature row"),
        (b"a\nb\n", r"text\.ids: 2 ids for 3 feature rows"),
        (b"a\nb\nc\nd\n", r"text\.ids: 4 ids for 3 feature rows"),
        (b"a\nb\n\xff\n", r"text\.ids: .*UTF-8"),
        (b"", r"text\.ids: is empty; restore it"),
    ],
)
def test_ids_files_that_do_not_name_every_row_are_refused(ids: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        with_ids(tmp_path / "in", ids, ["a", "b", "c"])


def test_an_empty_id_of_a_parquet_file_of_features_is_a_null(tmp_path: Path) -> None:
    folder = folder_called(tmp_path / "in")
    pq.write_table(pa.table({"item": ["0", ""], "vector": [[1.0], [2.0]]}), tmp_path / "text.parquet")
    with pytest.raises(
        InputError, match=r"text\.parquet: column item has a null or an empty id; name the item of every"
    ):
        unisrec_content(str(folder), {"text": str(tmp_path / "text.parquet")}, {})

"""What a grown dataset knows about its items: features, texts and columns of OLD, and what new files add."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.dataset import Dataset
from data.prepare.features import AlignedRows, EncodedRows
from data.prepare.growth.carried import CarriedRows, carried_features, carried_items
from tests.data.growth.growing import prepared_dataset, source_of

LOW = {"min_user_interactions": 1, "min_item_interactions": 1}


def vectors(file: Path, rows: dict[str, list[float]], kind: type = np.float32) -> str:
    table = pa.table({"item": [*rows], "vector": [np.array(row, kind) for row in rows.values()]})
    pq.write_table(table, file)
    return str(file)


@pytest.fixture
def old(tmp_path: Path) -> Dataset:
    """Items a, b and c, of which c has no text vector."""
    file = vectors(tmp_path / "old.parquet", {"a": [1, 0.1], "b": [-0.0, 2]})
    rows = source_of([("u", "a", 1), ("u", "b", 2), ("u", "c", 3)])
    return prepared_dataset(tmp_path / "old", rows, features={"text": file}, **LOW)


def grow(tmp_path: Path, old: Dataset, features: dict[str, str]) -> Dataset:
    rows = source_of([("u", "d", 4), ("v", "e", 5)])
    return prepared_dataset(tmp_path / "grown", rows, old, features=features, **LOW)


def test_rows_of_old_items_keep_their_bytes_and_gaps_are_filled(tmp_path: Path, old: Dataset) -> None:
    file = vectors(tmp_path / "new.parquet", {"a": [9, 9], "c": [3, 3], "d": [4, 4]})
    grown = grow(tmp_path, old, {"text": file})
    assert grown.features("text")[:2].tobytes() == old.features("text")[:2].tobytes()
    assert grown.features("text")[2:].tolist() == [[3, 3], [4, 4], [0, 0]]
    assert grown.presence("text").tolist() == [True, True, True, True, False]
    assert grown.manifest["dropped"]["feature_rows_of_known_items_text"] == 1


def test_without_a_file_new_items_lack_the_modality(tmp_path: Path, old: Dataset) -> None:
    grown = grow(tmp_path, old, {})
    assert grown.features("text")[:3].tobytes() == old.features("text").tobytes()
    assert grown.presence("text").tolist() == [True, True, False, False, False]


def test_a_modality_that_old_lacks_is_added(tmp_path: Path, old: Dataset) -> None:
    grown = grow(tmp_path, old, {"image": vectors(tmp_path / "image.parquet", {"b": [1, 2, 3], "d": [4, 5, 6]})})
    assert grown.modalities == ("image", "text")
    assert grown.presence("image").tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        ([1.0, 2.0, 3.0], np.float32, "3 values of float32, and those of .* have 2 of float32"),
        ([1.0, 2.0], np.float16, "2 values of float16, and those of .* have 2 of float32"),
    ],
)
def test_another_width_or_type_is_refused(
    tmp_path: Path, old: Dataset, row: list[float], kind: type, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        grow(tmp_path, old, {"text": vectors(tmp_path / "new.parquet", {"d": row}, kind)})


def test_another_encoder_is_refused_and_the_same_is_kept(old: Dataset) -> None:
    old.manifest["modalities"]["text"]["encoder"] = {"name": "minilm", "revision": "1"}
    plain = AlignedRows(np.ones((1, 2), np.float32), "new", np.array([-1, -1, -1, 0]))

    def encoded(**encoder: str) -> EncodedRows:
        return EncodedRows(array=plain.array, file="new", rows=plain.rows, encoder=encoder)

    with pytest.raises(InputError, match=r"new: does not name its encoder, and vectors of text of .* are of minilm"):
        carried_features(old, {"text": plain}, 4)
    with pytest.raises(InputError, match=r"new: vectors of text are of the encoder other .*those of .* of minilm"):
        carried_features(old, {"text": encoded(name="other", revision="2")}, 4)
    # A folder may have been renamed: the name decides nothing.
    features, _ = carried_features(old, {"text": encoded(name="copy", revision="1")}, 4)
    assert isinstance(features["text"], CarriedRows)
    assert features["text"].encoder == {"name": "minilm", "revision": "1"}


@pytest.mark.parametrize("block_rows", [1, 2, 3, 100])
def test_blocks_of_any_length_hold_the_same_rows(block_rows: int) -> None:
    old = np.arange(1, 15, dtype=np.float32).reshape(7, 2)
    added = AlignedRows(
        -np.arange(1, 7, dtype=np.float32).reshape(3, 2), "new", np.array([-1] * 4 + [0] + [-1] * 3 + [2])
    )
    rows = CarriedRows(old=old, added=added, num_items=9, encoder=None)
    expected = np.concatenate([old, np.zeros((2, 2), np.float32)])
    expected[[4, 8]] = [[-1, -2], [-5, -6]]
    assert np.concatenate([*rows.blocks(block_rows)]).tolist() == expected.tolist()
    without = np.concatenate([*replace(rows, added=None).blocks(block_rows)])
    assert without.tolist() == [*old.tolist(), [0, 0], [0, 0]]


def test_texts_and_columns_of_old_stay_and_their_gaps_are_filled(tmp_path: Path, old: Dataset) -> None:
    items = pq.read_table(old.folder / "items.parquet")
    items = items.append_column("text", pa.array(["A", None, "C"], pa.large_string()))
    items = items.append_column("price", pa.array([1.5, None, 3.5]))
    pq.write_table(items, tmp_path / "old/items.parquet")
    texts = pa.array(["new", "B", None, "D"], pa.large_string())
    columns = pa.table({"price": pa.array([9, 2, None, 4]), "brand": pa.array(["x", None, None, "y"])})
    found, further = carried_items(old, texts, columns, 4)
    assert found is not None
    assert further is not None
    assert found.to_pylist() == ["A", "B", "C", "D"]
    assert further.to_pydict() == {"price": [1.5, 2.0, 3.5, 4.0], "brand": ["x", None, None, "y"]}
    found, further = carried_items(old, None, None, 4)
    assert found is not None
    assert found.to_pylist() == ["A", None, "C", None]
    with pytest.raises(InputError, match="--item-columns price: is string, and double in"):
        carried_items(old, None, pa.table({"price": pa.array(["cheap"] * 4)}), 4)

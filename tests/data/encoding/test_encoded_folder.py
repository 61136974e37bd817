"""Datasets read the folders of jobs/encode_items.py, and record the encoder without a change of their content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data.dataset import Dataset, write_dataset
from data.encoding.encoded_folder import read_encoded
from data.encoding.facts import label_of, labels_of
from jobs.encode_items import main
from jobs.prepare_data import prepare
from tests.data.encoding.pictures import sound_pictures, write_pictures
from tests.data.encoding.test_encode import encode
from tests.data.encoding.test_tfidf import texts
from tests.data.small_files import small_content
from tests.fingerprints import fingerprints

ITEMS = 12


def prepared(path: Path, features: dict[str, str]) -> Dataset:
    rows = [(f"u{user}", f"i{(user + step) % ITEMS}", step) for user in range(8) for step in range(6)]
    users, items, times = zip(*rows, strict=True)
    pq.write_table(pa.table({"user": users, "item": items, "timestamp": times}), path.parent / "raw.parquet")
    every = {"min_user_interactions": 1, "min_item_interactions": 1}
    return prepare("table", str(path), str(path.parent / "raw.parquet"), features=features, **every)


def encoded(path: Path, **spec: object) -> Path:
    """Encode the items in another order than the dataset has, one of them without a text, and one that it lacks."""
    ids = [f"i{item}" for item in reversed(range(ITEMS))]
    values = [*texts(ITEMS - 1), None]
    table = pa.table({"item": ["other", *ids], "text": ["red drill", *values]})
    pq.write_table(table, path.with_suffix(".parquet"))
    encode(path.with_suffix(".parquet"), path, rows_per_part=5, spec={"width": 3} | spec)
    return path


def test_a_dataset_reads_the_vectors_and_records_the_encoder(tmp_path: Path) -> None:
    folder = encoded(tmp_path / "text")
    vectors, items, manifest = read_encoded(folder)
    dataset = prepared(tmp_path / "dataset", {"text": str(folder)})
    dataset.validate()
    own = dict(zip(items.to_pylist(), vectors, strict=True))
    expected = np.stack([own[item] for item in dataset.item_source_ids().to_pylist()])
    np.testing.assert_array_equal(dataset.features("text"), expected)
    assert dataset.presence("text").tolist() == expected.any(axis=1).tolist()
    assert dataset.manifest["modalities"]["text"]["num_present"] == ITEMS - 1
    assert dataset.manifest["modalities"]["text"]["encoder"] == manifest["encoder"]
    assert dataset.manifest["dropped"]["feature_rows_without_item_text"] == 1
    assert labels_of(dataset.manifest) == {"text": label_of(manifest["encoder"])}


def test_the_content_is_that_of_the_same_vectors_in_a_file(tmp_path: Path) -> None:
    folder = encoded(tmp_path / "text")
    vectors, items, _ = read_encoded(folder)
    pq.write_table(pa.table({"item": items, "vector": list(np.array(vectors))}), tmp_path / "vectors.parquet")
    ours = prepared(tmp_path / "ours", {"text": str(folder)})
    plain = prepared(tmp_path / "plain", {"text": str(tmp_path / "vectors.parquet")})
    assert ours.fingerprint == plain.fingerprint
    assert labels_of(plain.manifest) == {}
    differing = {
        name
        for name, content in fingerprints(tmp_path / "ours").items()
        if content != fingerprints(tmp_path / "plain")[name]
    }
    assert differing == {"manifest.json"}
    manifest = json.loads((tmp_path / "plain/manifest.json").read_text())
    assert manifest["modalities"]["text"].keys() == {"dim", "dtype", "num_present"}


def test_a_datasets_own_texts_are_encoded(tmp_path: Path) -> None:
    """The shortest way: prepare with texts, encode the dataset, prepare again."""
    content = replace(small_content(), item_texts=pa.array([None, *texts(5)]))
    write_dataset(str(tmp_path / "dataset"), content)
    command = ["--dataset", str(tmp_path / "dataset"), "--encoder", "tfidf", "--width", "1", "--output"]
    result = CliRunner().invoke(main, [*command, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "5 of 6 items have a vector of 1 values, by tfidf" in result.output
    assert "1 texts without a vector: no text" in result.output
    vectors, items, _ = read_encoded(tmp_path / "out")
    assert items.to_pylist() == [f"i{item}" for item in range(6)]
    assert vectors.any(axis=1).tolist() == [False, *[True] * 5]


@pytest.mark.long
def test_images_are_found_by_a_column_that_the_dataset_carries(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra encode is not installed")
    names = [*list(sound_pictures())[:5], None]
    write_pictures(tmp_path / "images", sound_pictures())
    content = replace(small_content(), item_columns=pa.table({"picture": names}))
    write_dataset(str(tmp_path / "dataset"), content)
    command = ["--dataset", str(tmp_path / "dataset"), "--encoder", "efficientnet-lite0", "--image-column", "picture"]
    command += ["--image-folder", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    vectors, items, _ = read_encoded(tmp_path / "out")
    assert items.to_pylist() == [f"i{item}" for item in range(6)]
    assert vectors.any(axis=1).tolist() == [*[True] * 5, False]


@pytest.mark.long
@pytest.mark.parametrize(("missing", "hint"), [(12, False), (40, True)])
def test_another_folder_is_proposed_if_nearly_all_files_are_missing(tmp_path: Path, missing: int, hint: bool) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra encode is not installed")
    names = list(sound_pictures())[:2]
    write_pictures(tmp_path, {name: sound_pictures()[name] for name in names})
    paths = [*names, *(f"none{number}.png" for number in range(missing))]
    pq.write_table(pa.table({"item": [f"i{n}" for n in range(len(paths))], "image": paths}), tmp_path / "t.parquet")
    command = ["--input", str(tmp_path / "t.parquet"), "--encoder", "efficientnet-lite0", "--output"]
    result = CliRunner().invoke(main, [*command, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (f"nearly all files are missing in {tmp_path}; if it is the wrong folder" in result.output) == hint

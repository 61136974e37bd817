"""prepare_data.py --append, as a person types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from data.dataset import Dataset
from jobs import encode_items, prepare_data
from tests.data.encoding import tiny_models
from tests.fingerprints import fingerprints
from tests.jobs.test_graph_jobs import invoke, refused
from tests.s3_server import BUCKET, running_server

ITEMS = ["--title-column", "title", "--item-columns", "price"]


def titles_of(ids: list[str]) -> list[str]:
    return [f"saw {name} {'red' if name < 'i2' else 'blue'}" for name in ids]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interactions of two months in files, and what is known about items."""
    here = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 60, 900), np.append(rng.integers(0, 25, 600), rng.integers(0, 30, 300))
    rows = pa.table(
        {
            "who": [f"u{user}" for user in users],
            "item": [f"i{item}" for item in items],
            "timestamp": 1_300_000_000 + 60 * np.arange(900),
        }
    )
    pacsv.write_csv(rows.slice(0, 600), here / "may.csv")
    pacsv.write_csv(rows.slice(600), here / "june.csv")
    pacsv.write_csv(rows, here / "both.csv")
    ids = [f"i{item}" for item in range(30)]
    titles = pa.table({"item": ids, "title": titles_of(ids), "price": np.arange(30)})
    pq.write_table(titles.slice(0, 25), here / "may-items.parquet")
    pq.write_table(titles, here / "june-items.parquet")
    pq.write_table(pa.table({"item": ids, "vector": list(np.eye(30, dtype=np.float32))}), here / "text.parquet")
    invoke(
        prepare_data, "--format", "table", "--input", here / "may.csv", "--output", here / "may", "--hold-back",
        "--user-column", "who", "--min-item-interactions", 3, "--features", f"text={here}/text.parquet",
        "--items", here / "may-items.parquet", *ITEMS,
    )  # fmt: skip
    return here


def test_a_month_is_added(files: Path, tmp_path: Path) -> None:
    before = fingerprints(files)
    said = invoke(
        prepare_data, "--append", files / "may", "--format", "table", "--input", files / "june.csv",
        "--output", tmp_path / "june", "--features", f"text={files}/text.parquet",
        "--items", files / "june-items.parquet", *ITEMS, "--max-history", 40,
    )  # fmt: skip
    may, june = Dataset.open(str(files / "may")), Dataset.open(str(tmp_path / "june"))
    assert f"as in {files}/may: --hold-back --min-item-interactions 3 --min-user-interactions 5" in said
    assert "--user-column who" in said
    assert f"new users: {june.num_users - may.num_users}, new items: {june.num_items - may.num_items}" in said
    assert f"of its {may.num_users} users, " in said
    june.validate()
    assert fingerprints(files) == before
    assert june.item_texts().to_pylist() == titles_of(june.item_source_ids().to_pylist())
    assert june.presence("text").all()
    whole = tmp_path / "whole"
    invoke(
        prepare_data, "--format", "table", "--input", files / "both.csv", "--output", whole, "--user-column", "who",
        "--min-item-interactions", 3,
    )  # fmt: skip
    counts = [(d.num_users, d.num_items, d.num_interactions) for d in (june, Dataset.open(str(whole)))]
    assert counts[0] == counts[1]


def test_what_is_other_than_in_old_is_said_and_repeats_are_dropped(files: Path, tmp_path: Path) -> None:
    said = invoke(
        prepare_data, "--append", files / "may", "--format", "table", "--input", files / "both.csv",
        "--output", tmp_path / "june", "--min-item-interactions", 2, "--no-hold-back",
    )  # fmt: skip
    assert f"--min-item-interactions 2, in {files}/may --min-item-interactions 3" in said
    assert f"--no-hold-back, in {files}/may --hold-back" in said
    june = Dataset.open(str(tmp_path / "june"))
    assert june.manifest["dropped"]["duplicates"] >= 600
    assert not (tmp_path / "june/held_back.parquet").exists()
    lacking = int((~june.presence("text")).sum())
    assert (f"new items without text: {lacking}" in said) == bool(lacking)


@pytest.mark.long
def test_only_texts_that_are_there_are_said_to_be_encoded_later(files: Path, tmp_path: Path) -> None:
    may = tmp_path / "may"
    shutil.copytree(files / "may", may)

    def said(encoder: dict[str, str] | None, *more: object) -> str:
        manifest = json.loads((may / "manifest.json").read_text())
        manifest["modalities"]["text"]["encoder"] = encoder
        (may / "manifest.json").write_text(json.dumps(manifest))
        output = invoke(
            prepare_data, "--append", may, "--format", "table", "--input", files / "june.csv",
            "--min-item-interactions", 1, "--output", tmp_path / "june", "--overwrite", *more,
        )  # fmt: skip
        (line,) = [line for line in output.splitlines() if line.startswith("new items without text: 5; ")]
        return line.removeprefix("new items without text: 5; ")

    june_items = ["--items", files / "june-items.parquet", *ITEMS]
    command = f"encode_items.py --dataset {tmp_path}/june --only-missing text"
    by_file = "they stay without it unless --features text=FILE has their vectors"
    minilm = {"name": "minilm", "modality": "text"}
    assert said(minilm, *june_items) == f"5 of them have a text, which {command} encodes"
    assert said(minilm) == by_file  # no titles of new items
    for other in ({"name": "tfidf", "modality": "text"}, {"name": "efficientnet-lite0", "modality": "image"}, None):
        assert said(other, *june_items) == by_file


def test_lost_rows_that_were_held_back_are_said(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "may", tmp_path / "may")
    (tmp_path / "may/held_back.parquet").unlink(missing_ok=True)
    assert "has lost its held_back.parquet" in grow(files, tmp_path / "may", tmp_path / "june")


def test_a_refused_growth_leaves_an_earlier_output(files: Path, tmp_path: Path) -> None:
    arguments = ["--append", files / "may", "--format", "table", "--output", tmp_path / "june", "--overwrite"]
    invoke(prepare_data, *arguments, "--input", files / "june.csv")
    before = fingerprints(tmp_path)
    (files / "wrong.csv").write_text("who,item,timestamp\nu1,i1,1300000000000\n")
    said = invoke(prepare_data, *arguments, "--input", files / "wrong.csv", status=2)
    assert "a time in milliseconds" in said
    assert fingerprints(tmp_path) == before


@pytest.mark.long
def test_datasets_in_object_storage_grow(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDSREC_CACHE", str(tmp_path / "cache"))
    root = f"s3://{BUCKET}/months"
    common = ["--format", "table", "--user-column", "who"]
    with running_server() as server:
        invoke(prepare_data, *common, "--input", files / "may.csv", "--output", f"{root}/may", "--hold-back")
        published = server.names("months/may")
        assert any(name.endswith("held_back.parquet") for name in published)
        invoke(
            prepare_data, *common, "--append", f"{root}/may", "--input", files / "june.csv", "--output", f"{root}/june"
        )
        may, june = Dataset.open(f"{root}/may"), Dataset.open(f"{root}/june")
        assert june.manifest["source"]["appended_to"]["path"] == f"{root}/may"
        assert june.user_source_ids().slice(0, may.num_users).equals(may.user_source_ids())
        assert server.names("months/may") == published
        said = refused(
            prepare_data, *common, "--append", f"{root}/may", "--input", files / "june.csv",
            "--output", f"{root}/may/more",
        )  # fmt: skip
        assert "inside it or around it" in said


def grow(files: Path, old: Path, output: Path, *more: object) -> str:
    """Add June, with its titles, to a dataset of May."""
    return invoke(
        prepare_data, "--append", old, "--format", "table", "--input", files / "june.csv", "--output", output,
        "--items", files / "june-items.parquet", *ITEMS, *more,
    )  # fmt: skip


def of_may(files: Path, output: Path, vectors: Path) -> Path:
    invoke(
        prepare_data, "--format", "table", "--input", files / "may.csv", "--output", output, "--user-column", "who",
        "--items", files / "may-items.parquet", *ITEMS, "--features", f"text={vectors}",
    )  # fmt: skip
    return output


def item_table(files: Path, month: str) -> list[object]:
    return ["--input", files / f"{month}-items.parquet", "--text-column", "title"]


@pytest.mark.long
def test_only_new_items_are_encoded_before_they_are_added(files: Path, tmp_path: Path) -> None:
    encoder = ["--encoder", "tfidf", "--width", 2]
    invoke(encode_items, *item_table(files, "may"), *encoder, "--output", tmp_path / "may-text")
    old = of_may(files, tmp_path / "may", tmp_path / "may-text")
    invoke(
        encode_items, *item_table(files, "june"), *encoder, "--reuse", tmp_path / "may-text",
        "--output", tmp_path / "june-text",
    )  # fmt: skip
    grow(files, old, tmp_path / "june", "--features", f"text={tmp_path}/june-text")
    may, june = Dataset.open(str(old)), Dataset.open(str(tmp_path / "june"))
    assert june.num_items > may.num_items
    assert june.features("text")[: may.num_items].tobytes() == may.features("text").tobytes()
    assert june.manifest["modalities"]["text"]["encoder"] == may.manifest["modalities"]["text"]["encoder"]
    # What TF-IDF learns from other texts is another encoder.
    invoke(encode_items, *item_table(files, "june"), *encoder, "--output", tmp_path / "other")
    said = grow_refused(files, old, tmp_path / "refused", "--features", f"text={tmp_path}/other")
    assert "vectors of text are of the encoder tfidf" in said


def grow_refused(files: Path, old: Path, output: Path, *more: object) -> str:
    found: str = invoke(
        prepare_data, "--append", old, "--format", "table", "--input", files / "june.csv", "--output", output, *more,
        status=2,
    )  # fmt: skip
    assert not output.exists()
    return found


@pytest.mark.long
def test_only_new_items_are_encoded_after_they_were_added(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra encode is not installed")
    encoder = ["--encoder", tiny_models.bert(tmp_path / "bert")]
    invoke(encode_items, *item_table(files, "may"), *encoder, "--output", tmp_path / "may-text")
    old = of_may(files, tmp_path / "may", tmp_path / "may-text")
    said = grow(files, old, tmp_path / "june")
    assert f"encode_items.py --dataset {tmp_path}/june --only-missing text" in said
    june = Dataset.open(str(tmp_path / "june"))
    lacking = int((~june.presence("text")).sum())
    assert lacking
    said = invoke(
        encode_items, "--dataset", june.path, "--only-missing", "text", *encoder, "--output", tmp_path / "new-text"
    )
    assert f"{lacking} of {lacking} items have a vector" in said
    grow(files, old, tmp_path / "june", "--features", f"text={tmp_path}/new-text", "--overwrite")
    may, june = Dataset.open(str(old)), Dataset.open(str(tmp_path / "june"))
    assert june.presence("text").all()
    assert june.features("text")[: may.num_items].tobytes() == may.features("text").tobytes()
    # The same as encoding all items at once.
    invoke(encode_items, "--dataset", june.path, *encoder, "--output", tmp_path / "all")
    ids = pq.read_table(tmp_path / "all/items.parquet").column("item").to_pylist()
    rows = [ids.index(name) for name in june.item_source_ids().to_pylist()]
    np.testing.assert_allclose(june.features("text"), np.load(tmp_path / "all/vectors.npy")[rows], atol=1e-5)

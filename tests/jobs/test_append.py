"""prepare_data.py --append, as a person types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from data.dataset import Dataset
from jobs import prepare_data
from tests.fingerprints import fingerprints
from tests.jobs.test_graph_jobs import invoke, refused
from tests.s3_server import BUCKET, running_server

ITEMS = ["--title-column", "title", "--item-columns", "price"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interactions of two months in files, and what is known about items."""
    here = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 60, 900), rng.zipf(1.3, 900) % 30
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
    titles = pa.table({"item": ids, "title": [f"title {name}" for name in ids], "price": np.arange(30)})
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
    assert june.item_texts().to_pylist() == [f"title {name}" for name in june.item_source_ids().to_pylist()]
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

"""Mutated files: an error or a correct load, never another exception, never another dataset.

The draws are the same every time. What is a dataset has a checksum and must come back equal; what is not must come
back as its bytes now say, which for texts a second, slow reader tells.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.dataset import Dataset
from data.formats.unisrec import read_unisrec
from data.prepare.features import read_features
from tests.data.read_rows import read_recbole, read_table
from tests.data.small_files import small_dataset, write_index, write_unisrec
from tests.mutation import folder_of, made, mutated

DETERMINISTIC = {"derandomize": True, "deadline": None, "database": None}


def everything(dataset: Dataset) -> dict[str, Any]:
    """All that a consumer can ask a dataset for."""
    texts = dataset.item_texts()
    return {
        "counts": (dataset.num_users, dataset.num_items, dataset.num_interactions, dataset.modalities),
        "fingerprint": dataset.fingerprint,
        "ids": (dataset.user_source_ids().to_pylist(), dataset.item_source_ids().to_pylist()),
        "texts": None if texts is None else texts.to_pylist(),
        **{
            name: np.array(getattr(dataset, name)).tolist()
            for name in ("users", "offsets", "items", "timestamps", "train_end", "valid_end")
        },
        "popularity": dataset.popularity().tolist(),
        "features": {m: np.array(dataset.features(m)).tolist() for m in dataset.modalities},
        "presence": {m: dataset.presence(m).tolist() for m in dataset.modalities},
    }


@cache
def sound() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files of a dataset, and what it says; made where the first test asks, not at each import."""
    files = made(small_dataset)
    with folder_of(files) as folder:
        return files, everything(Dataset.open(str(folder)))


def settle(contents: dict[str, bytes]) -> dict[str, bytes]:
    """The manifest made to agree with the sizes of the files, so that the readers behind that check are reached."""
    try:
        manifest = json.loads(contents["manifest.json"])
        manifest["bytes"] = {name: len(contents[name]) for name in manifest["bytes"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return contents
    return contents | {"manifest.json": json.dumps(manifest).encode()}


@pytest.mark.long
@settings(**DETERMINISTIC, max_examples=500)
@given(st.deferred(lambda: mutated(sound()[0])), st.booleans())
def test_a_mutated_dataset_is_refused_or_the_same(contents: dict[str, bytes], is_settled: bool) -> None:
    with folder_of(settle(contents) if is_settled else contents) as folder:
        try:
            dataset = Dataset.open(str(folder))
            dataset.validate()
        except InputError:
            return
        assert everything(dataset) == sound()[1]


ROWS = [(f"u{n % 7}", f"i{n % 5}", 1_300_000_000 + n) for n in range(40)]


def recbole_text() -> bytes:
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in ROWS)]
    return ("\n".join(lines) + "\n").encode()


def csv_text() -> bytes:
    return ("\n".join(["user,item,timestamp", *(",".join(map(str, row)) for row in ROWS)]) + "\n").encode()


def json_text() -> bytes:
    names = ("user", "item", "timestamp")
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS).encode()


def by_lines(kind: str, text: str) -> list[tuple[str | None, str | None, int | None]]:
    """What a text says, read slowly and without Arrow; any exception where it says nothing clear."""
    lines = [line for line in re.split("\r\n|\n|\r", text.removeprefix("\ufeff")) if line]
    if kind == "jsonl":
        rows = [tuple(found.get(name) for name in ("user", "item", "timestamp")) for found in json_objects(text)]
    else:
        names = {"csv": ["user", "item", "timestamp"], "inter": ["user_id:token", "item_id:token", "timestamp:float"]}
        table = list(csv.reader(lines, strict=True)) if kind == "csv" else [line.split("\t") for line in lines]
        places = [table[0].index(name) for name in names[kind]]
        assert {len(row) for row in table} == {len(table[0])}
        rows = [tuple(row[place] or None for place in places) for row in table[1:]]
    return [(user, item, None if time is None else whole(time)) for user, item, time in rows]


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """One after the other, usually a line each."""
    while text := text.lstrip(" \t\r\n\ufeff"):
        found, end = json.JSONDecoder().raw_decode(text)
        yield found
        text = text[end:]


def whole(time: str | int | float) -> int:
    assert float(time) == int(float(time))
    return int(time) if isinstance(time, int) or re.fullmatch(r"[+-]?\d+", str(time)) else int(float(time))


@pytest.mark.parametrize(("kind", "text"), [("csv", csv_text()), ("jsonl", json_text()), ("inter", recbole_text())])
def test_a_mutated_text_is_refused_or_read_as_it_says(kind: str, text: bytes) -> None:
    @settings(**DETERMINISTIC, max_examples=300)
    @given(mutated({f"rows.{kind}": text}))
    def check(contents: dict[str, bytes]) -> None:
        with folder_of(contents) as folder:
            file = str(folder / f"rows.{kind}")
            try:
                table = read_recbole(file) if kind == "inter" else read_table(file)
            except InputError:
                return
        read = list(zip(*(table.column(name).to_pylist() for name in ("user", "item", "timestamp")), strict=True))
        # Bytes that are not UTF-8 can only be in the name of another column: nothing is looked at there.
        assert read == by_lines(kind, contents[f"rows.{kind}"].decode(errors="replace"))

    check()


HISTORIES = [[0, 1, 2, 3, 4], [3, 2, 1, 0], [4, 0, 4, 0, 1], [5, 1, 2]]


def unisrec_folder(folder: Path) -> None:
    write_unisrec(folder, HISTORIES)
    write_index(folder, len(HISTORIES), 6)
    (folder / "Toy.text").write_text(
        "item_id:token\ttext:token_seq\n" + "".join(f"item{i}\tword {i}\n" for i in range(6))
    )


UNISREC = made(unisrec_folder)


@pytest.mark.long
@settings(**DETERMINISTIC, max_examples=300)
@given(mutated(UNISREC))
def test_mutated_sequential_files_are_refused_or_consistent(contents: dict[str, bytes]) -> None:
    """Three files show most items, so a changed one contradicts the others; the last two of a user are shown once."""
    with folder_of(contents) as folder:
        try:
            read = read_unisrec(str(folder))
        except InputError:
            return
    offsets, items = read.sequences.offsets, read.sequences.items
    assert offsets[0] == 0
    assert offsets[-1] == len(items)
    assert (np.diff(offsets) >= 3).all()
    assert len(offsets) == len(read.user_source_ids) + 1
    assert ((items >= 0) & (items < len(read.item_source_ids))).all()
    is_renumbered = contents["Toy.item2index"] != UNISREC["Toy.item2index"]
    if len(items) == sum(map(len, HISTORIES)) and not is_renumbered:
        kept = [items[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]
        assert [history[:-2] for history in kept] == [history[:-2] for history in HISTORIES]


VECTORS = np.arange(18, dtype=np.float32).reshape(6, 3)
NAMES = [f"item{i}" for i in range(6)]


def vectors_file(folder: Path) -> None:
    table = pa.table({"item": NAMES, "vector": pa.array(VECTORS.tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, folder / "text.parquet", write_page_checksum=True)


def matrix_file(folder: Path) -> None:
    np.save(folder / "text.npy", VECTORS)
    (folder / "text.ids").write_text("\n".join(NAMES))


@pytest.mark.parametrize("write", [vectors_file, matrix_file])
def test_mutated_features_are_refused_or_finite_rows_of_items(write: Any) -> None:
    @settings(**DETERMINISTIC, max_examples=300)
    @given(mutated(made(write)))
    def check(contents: dict[str, bytes]) -> None:
        with folder_of(contents) as folder:
            file = "text.parquet" if "text.parquet" in contents else "text.npy"
            ids = {} if file == "text.parquet" else {"text": str(folder / "text.ids")}
            try:
                features, _ = read_features({"text": str(folder / file)}, ids, pa.array(NAMES), False)
                rows = np.concatenate(list(features["text"].blocks(4)))
            except InputError:
                return
            assert rows.shape == (6, features["text"].dim)
            assert np.isfinite(rows).all()
            if file == "text.parquet":  # each page has a checksum
                known = rows.any(axis=1)
                np.testing.assert_array_equal(rows[known], VECTORS[known])

    check()

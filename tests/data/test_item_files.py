"""Descriptions of items: texts without HTML, further columns, formats, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.formats import item_files
from jobs.prepare_data import prepare
from tests.data.read_rows import source_of

EVERYTHING = {"min_user_interactions": 1, "min_item_interactions": 1}
ITEMS: list[dict[str, Any]] = [
    {"item": "a", "title": "Red &amp;quot;Shoe&amp;quot;<br/>for\n  kids", "categories": ["Toys &amp; Games", "Shoes"],
     "price": 3.5, "more": {"x": 1}},
    {"item": "b", "title": None, "categories": [], "price": None},
    {"item": "c", "title": "5 < 6 &lt;3", "categories": ["Caf\u00e9", None, "<b>Tea</b>"], "price": 4.0},
    {"item": "a", "title": "again", "categories": None, "price": 1.0},
    {"item": None, "title": "no id", "categories": None, "price": 1.0},
    {"item": "z", "title": "\u00a0 ", "categories": None, "price": 9.0},
]  # fmt: skip
TEXTS = {"a": 'Red "Shoe" for kids Toys & Games Shoes', "b": None, "c": "5 < 6 <3 Café Tea", "z": None}


def interactions(folder: Path) -> str:
    rows = [f"{user},{item},{n}" for n, (user, item) in enumerate([("u", "a"), ("u", "b"), ("v", "c"), ("v", "d")])]
    (folder / "x.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    return str(folder / "x.csv")


def write_items(folder: Path, kind: str, items: list[dict[str, Any]] = ITEMS) -> str:
    file = folder / f"items.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([{**item, "more": None} for item in items]), file)
    else:
        text = "".join(json.dumps(item) + "\n" for item in items).encode()
        file.write_bytes(gzip.compress(text) if kind.endswith(".gz") else text)
    return str(file)


@pytest.mark.parametrize("kind", ["jsonl", "json.gz", "parquet"])
@pytest.mark.parametrize("block_bytes", [1, 200, 1 << 20])
def test_texts_and_columns_of_items(
    kind: str, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_files, "_BLOCK_BYTES", block_bytes)
    options = {"items": write_items(tmp_path, kind), "title_column": ["title", "categories"]}
    table = source_of("table", interactions(tmp_path), item_columns="price, title", **options).item_columns()
    assert table is not None
    assert table.column_names == ["item", "text", "price", "title"]
    assert dict(zip(table["item"].to_pylist(), table["text"].to_pylist(), strict=True)) == TEXTS
    assert table["price"].to_pylist() == [3.5, None, 4.0, 9.0]
    assert table["title"].to_pylist()[0] == ITEMS[0]["title"]  # carried along as it is


def test_a_dataset_has_the_texts_and_columns_of_its_items(tmp_path: Path) -> None:
    dataset = prepare(
        "table", str(tmp_path / "d"), interactions(tmp_path), items=write_items(tmp_path, "jsonl"),
        title_column="title", item_columns="price", **EVERYTHING,
    )  # fmt: skip
    dataset.validate()
    texts = dataset.item_texts()
    assert texts is not None
    assert texts.to_pylist() == ['Red "Shoe" for kids', None, "5 < 6 <3", None]
    table = pq.read_table(tmp_path / "d" / "items.parquet")
    assert table.column_names == ["item", "source_id", "popularity", "text", "price"]
    assert table["price"].to_pylist() == [3.5, None, 4.0, None]
    assert dataset.manifest["dropped"]["described_items_without_interactions"] == 1
    assert dataset.manifest["source"]["title_column"] == ["title"]


def test_values_of_several_types_become_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"item": "a", "price": 3}, {"item": "b", "price": "from 5"}, {"item": "c", "price": [1, "x"]}]
    for block_bytes in (1, 1 << 20):
        monkeypatch.setattr(item_files, "_BLOCK_BYTES", block_bytes)
        file = write_items(tmp_path, "jsonl", items)
        table = source_of("table", interactions(tmp_path), items=file, item_columns="price").item_columns()
        assert table is not None
        assert table["price"].to_pylist() == ["3", "from 5", '[1, "x"]']


def test_delimited_items_and_recbole_items(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ta\t5\n")
    (tmp_path / "x.item").write_text('item_id:token\ttitle:token_seq\na\tThe "best"\nb\t\n')
    options = {"item_id_column": "item_id:token", "title_column": ["title:token_seq"]}
    table = source_of("recbole", str(tmp_path), items=str(tmp_path / "x.item"), **options).item_columns()
    assert table is not None
    assert table.to_pydict() == {"item": ["a", "b"], "text": ['The "best"', None]}


def test_items_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("a\tred shoe\nb\t\n")
    options = {"items": str(tmp_path / "items.tsv"), "item_names": "item,title", "title_column": ["title"]}
    table = source_of("table", interactions(tmp_path), **options).item_columns()
    assert table is not None
    assert table.to_pydict() == {"item": ["a", "b"], "text": ["red shoe", None]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"item_names": "item,title"}, "--item-names: is for text without a header, and .* is none; leave it out"),
        ({"title_column": ["name"]}, r"items\.jsonl: no column 'name' among 'item', 'title'"),
        ({"item_id_column": "asin", "title_column": ["title"]}, r"no column 'asin' among"),
        ({}, "--items: nothing is read; name columns with --title-column or --item-columns"),
        ({"item_columns": "text"}, "--item-columns text: a dataset has a column of that name already; rename it"),
        ({"item_columns": "has_image"}, "--item-columns has_image: a dataset has"),
        ({"item_columns": "price,price"}, "names a column twice"),
        ({"items": None, "title_column": ["title"]}, "--title-column: is about the file of --items; add --items FILE"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    options = {"items": write_items(tmp_path, "jsonl")} | options
    with pytest.raises(InputError, match=message):
        source_of("table", interactions(tmp_path), **options).item_columns()


def test_descriptions_of_other_items_are_refused(tmp_path: Path) -> None:
    file = write_items(tmp_path, "jsonl", [{"item": "q", "title": "x"}])
    with pytest.raises(InputError, match=r"describes none of the 4 items \(its first is 'q', an item is 'a'\)"):
        prepare("table", str(tmp_path / "d"), interactions(tmp_path), items=file, title_column="title", **EVERYTHING)
    (tmp_path / "items.jsonl").write_text('{"item": "a", "title": "x"}\n{"item"\n')
    with pytest.raises(InputError, match=r"items\.jsonl: row 2 is not valid JSON"):
        prepare("table", str(tmp_path / "d"), interactions(tmp_path), items=file, title_column="title", **EVERYTHING)

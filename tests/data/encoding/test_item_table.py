"""Tables of items in every format give the same ids and texts, in file order, and mistakes are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.encoding.item_table import ItemTable
from data.encoding.parts import Part, plan_parts

IDS = ["a", "b", "0c", "dé", "e"]
TEXTS = ["red drill", "he said 'no', twice", None, 'a "quoted" text', "last"]


def table_of(path: Path, **options: object) -> ItemTable:
    defaults = {"path": str(path), "modality": "text", "item_column": "item", "columns": ("text",)}
    return ItemTable(**defaults | options)


def rows_of(table: ItemTable) -> tuple[list[str], list[list[str | None]]]:
    blocks = [block for file in table.files() for block in table.blocks(file)]
    whole = pa.concat_tables(blocks)
    return whole.column("item").to_pylist(), whole.column("values").to_pylist()


def write(path: Path, ids: list[str] = IDS, texts: list[str | None] = TEXTS) -> Path:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.table({"other": range(len(ids)), "text": texts, "item": ids}), path, row_group_size=2)
        return path
    if kind == "jsonl":
        lines = [
            {"price": 1 if i % 2 else "free", "item": item, "text": t}
            for i, (item, t) in enumerate(zip(ids, texts, strict=True))
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines)
    elif kind == "csv":
        quoted = ['"' + (text or "").replace('"', '""') + '"' for text in texts]
        content = "item,other,text\n" + "".join(f"{i},1,{t}\n" for i, t in zip(ids, quoted, strict=True))
    else:
        content = "item\ttext\n" + "".join(f"{i}\t{t or ''}\n" for i, t in zip(ids, texts, strict=True))
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(content.encode())
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.tsv", "t.jsonl", "t.csv.gz", "t.jsonl.gz", "t.tsv.gz"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    assert rows_of(table_of(write(tmp_path / name))) == (IDS, [[text] for text in TEXTS])


def test_a_file_without_a_header_and_a_unisrec_file(tmp_path: Path) -> None:
    (tmp_path / "plain.tsv").write_text("x1\tone two\nx2\tthree\n")
    table = table_of(tmp_path / "plain.tsv", names=("item", "text"))
    assert rows_of(table) == (["x1", "x2"], [["one two"], ["three"]])
    (tmp_path / "Toy.text").write_text('item_id:token\ttext:token_seq\nx1\tone "two\nx2\tthree\n')
    table = table_of(tmp_path / "Toy.text", item_column="item_id:token", columns=("text:token_seq",))
    assert rows_of(table) == (["x1", "x2"], [['one "two'], ["three"]])


def test_lists_stay_lists_and_several_columns_are_joined(tmp_path: Path) -> None:
    lists = [["a", "b"], [], None, ["c", None, "d"]]
    content = {"item": [1, 2, 3, 4], "text": lists, "brand": ["x", None, "", "y"]}
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({k: v[i] for k, v in content.items()}) + "\n" for i in range(4))
    )
    for name in ("t.parquet", "t.jsonl"):
        ids, values = rows_of(table_of(tmp_path / name))
        assert ids == ["1", "2", "3", "4"]
        assert values == [["a", "b"], [None], [None], ["c", None, "d"]]
        assert rows_of(table_of(tmp_path / name, columns=("brand", "text")))[1] == [["x a b"], [""], [""], ["y c d"]]


@pytest.mark.parametrize("has_bytes", [True, False])
def test_structs_without_bytes_name_files(has_bytes: bool, tmp_path: Path) -> None:
    """Hugging Face's datasets write the path alone of images that they have not read."""
    images = [{"bytes": b"1" if has_bytes else None, "path": "x"}, {"bytes": None, "path": "ok.png"}, None]
    pq.write_table(pa.table({"item": ["a", "b", "c"], "image": images}), tmp_path / "t.parquet")
    table = table_of(tmp_path / "t.parquet", modality="image", columns=("image",))
    (tmp_path / "work").mkdir()
    (part,) = plan_parts(table, tmp_path / "work", 4, None, "")
    first = b"1" if has_bytes else "x"
    assert [value for _, value in part.values(tmp_path / "work")] == [[first], ["ok.png"], [None]]


@pytest.mark.parametrize("kind", ["binary", "struct", "list"])
def test_parts_of_images_in_a_table_say_where_they_are(kind: str, tmp_path: Path) -> None:
    images = [f"image {i}".encode() for i in range(11)]
    values = {
        "binary": images,
        "struct": [{"bytes": i, "path": "x"} for i in images],
        "list": [[i, None] for i in images],
    }
    ids = [f"i{i}" for i in range(11)]
    pq.write_table(pa.table({"item": ids, "image": values[kind]}), tmp_path / "t.parquet", row_group_size=7)
    table = table_of(tmp_path / "t.parquet", modality="image", columns=("image",))
    wanted = pa.array([f"i{i}" for i in range(11) if i != 4], pa.large_string())
    (tmp_path / "work").mkdir()
    parts = plan_parts(table, tmp_path / "work", 4, lambda items: pa.compute.is_in(items, value_set=wanted), "wanted")
    found = [
        (item, value)
        for part in parts
        for item, (_, value) in zip(
            part.items(tmp_path / "work").to_pylist(), part.values(tmp_path / "work"), strict=True
        )
    ]
    assert [part.num_rows for part in parts] == [4, 2, 4]
    rest = [None] if kind == "list" else []
    assert found == [(ids[i], [images[i], *rest]) for i in range(11) if i != 4]


def test_a_plan_is_kept_until_the_table_changes(tmp_path: Path) -> None:
    table, work = table_of(write(tmp_path / "t.tsv")), tmp_path / "work"
    work.mkdir()
    parts = plan_parts(table, work, 2, None, "")
    assert [part.num_rows for part in parts] == [2, 2, 1]
    assert [part.items(work).to_pylist() for part in parts] == [IDS[:2], IDS[2:4], IDS[4:]]
    before = [part.path(work).stat().st_mtime_ns for part in parts]
    assert plan_parts(table, work, 2, None, "") == parts
    assert [part.path(work).stat().st_mtime_ns for part in parts] == before
    write(tmp_path / "t.tsv", texts=[*TEXTS[:-1], "other"])
    changed = plan_parts(table, work, 2, None, "")
    assert [a.digest == b.digest for a, b in zip(parts, changed, strict=True)] == [True, True, False]
    assert len({part.digest for part in parts}) == 3


def test_parts_do_not_depend_on_blocks(tmp_path: Path) -> None:
    many = 17_000  # more than a block
    ids, texts = [f"i{n}" for n in range(many)], [f"text {n % 7}" for n in range(many)]
    for name in ("t.parquet", "t.csv"):
        table = table_of(write(tmp_path / name, ids, texts))
        work = tmp_path / f"{name}.work"
        work.mkdir()
        parts: list[Part] = plan_parts(table, work, 4999, None, "")
        assert [part.num_rows for part in parts] == [4999] * 3 + [2003]
        assert np.concatenate([part.items(work) for part in parts]).tolist() == ids
        assert [value for part in parts for _, value in part.values(work)] == [[text] for text in texts]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "item,title\n1,a\n", "no column 'text' among 'item', 'title'; name it with --text-column"),
        ("t.csv", "item,text\n1,a,b\n", "cannot be read"),
        ("t.csv", "item,text\n1,a\n,b\n", "column item is empty in row 2"),
        ("t.csv", "item;text\n1;a\n", "columns separated by semicolons, expected item, text separated by commas"),
        ("t.csv", "", "is empty"),
        ("t.jsonl", '{"item": 1, "text": {"a": 2}}\n', "expected text or a list of texts"),
        ("t.jsonl", '{"item": 1, "text": 7}\n', "column text is int64, expected text or lists"),
        ("t.jsonl", '{"item": 1, "text": \n', "row 1 is not valid JSON"),
        ("t.jsonl", '{"item": 1.0, "text": "a"}\n', "column item is 1.0 in row 1, ids must be text or whole numbers"),
        ("t.jsonl", '{"item": [1], "text": "a"}\n', r"column item is \[1\] in row 1, ids must be text"),
        (
            "t.jsonl",
            '{"item": 1, "text": "a"}\n\n{"item": 2, "text": "b"}\n{"item": 3, "text": "c\n',
            "row 4 is not valid JSON",
        ),
        (
            "t.jsonl",
            '{"item": 1, "text": "a"}\n{"item": "b", "text": "b"}\n',
            "column item is 'b' in row 2, and a whole number before; write all rows alike",
        ),
        ("t.jsonl", '{"item": 1, "text": "a"}\n{"item": 2.5, "text": "b"}\n', "column item is 2.5 in row 2, ids must"),
        ("t.jsonl", "[1]\n", "expected one JSON object a line"),
        ("t.xlsx", "", "suffix '.xlsx' is not"),
        ("t.parquet", "no", "cannot be read"),
    ],
)
def test_mistakes_in_tables_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        rows_of(table_of(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "//cdn.x.org/a.jpg",
        "www.x.org/a.jpg",
        "https://x.org/a.jpg",
        "http://x/a",
        "s3://b/a.png",
        "data:image/png;base64,iVBOR",
        " HTTPS://X/a",
    ],
)
def test_addresses_of_images_are_refused_with_the_command_that_downloads(url: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["a", "b"], "image": ["fine.png", url]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"nothing is ever downloaded here.*curl"):
        rows_of(table_of(tmp_path / "t.parquet", modality="image", columns=("image",)))

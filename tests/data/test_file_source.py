"""Files of interactions: the same rows in every format, whatever the sizes of chunks and blocks, and errors by row."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from data.formats import delimited_layout
from data.formats.delimited_layout import DelimitedLayout
from data.formats.file_source import FileSource
from data.formats.input_files import find_files
from data.formats.source import all_blocks
from jobs.prepare_data import prepare
from tests.data.engine.in_memory import collected_rows
from tests.data.read_rows import rows_with_nulls, source_of
from tests.data.small_files import REAL

NAMES = ("user", "item", "timestamp")
TYPED = ("user_id:token", "item_id:token", "timestamp:float")
Row = tuple[str | None, str | None, str | None]

LETTERS = ["a", "b", "7", '"', " ", ",", "é", "\ufeff", "'", "\\", "😀"]
ids = st.one_of(st.none(), st.text(st.sampled_from(LETTERS), min_size=1, max_size=4))
# Times in two units in one column are refused, so no number is a time of the years 1973 to 2099 in any unit.
TIMES = [range(10**8 * factor, 4_102_444_801 * factor) for factor in (1, 10**3, 10**6, 10**9)]


def wholes(most: int) -> st.SearchStrategy[int]:
    return st.integers(-most, most).filter(lambda number: not any(number in times for times in TIMES))


numbers = wholes(2**62).map(str)
small = st.integers(-99, 99).map(str)
points = wholes(2**40).map(lambda number: f"{number}.0")
dates = st.sampled_from(["2020-01-31", "2020-01-31T10:11", "1999-12-31 23:59:59.5", "2001-02-03T04:05:06.123456+02:00"])
tables = st.sampled_from([numbers, small, points, dates]).flatmap(
    lambda times: st.lists(st.tuples(ids, ids, st.one_of(st.none(), times)), min_size=1, max_size=12)
)


def csv_text(rows: list[Row], end: str) -> str:
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator=end).writerows([NAMES, *rows])
    return sink.getvalue()


def tab_text(names: tuple[str, ...], rows: list[Row], end: str) -> str:
    return "".join("\t".join(part or "" for part in row) + end for row in [names, *rows])


def json_text(rows: list[Row], end: str, is_ascii: bool) -> str:
    # Times as they are spelt: without quotes, unless they are dates.
    lines = []
    for user, item, time in rows:
        spelt = "null" if time is None else json.dumps(time) if ":" in time or time.count("-") > 1 else time
        names = json.dumps({"item": item, "other": [1, {}], "user": user}, ensure_ascii=is_ascii)
        lines.append(f'{names[:-1]}, "timestamp": {spelt}}}{end}')
    return "".join(lines)


def parquet_bytes(rows: list[Row], group: int) -> bytes:
    sink = io.BytesIO()
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(3)]
    pq.write_table(pa.table(columns, names=NAMES), sink, row_group_size=group, write_page_checksum=True)
    return sink.getvalue()


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(
    rows=tables,
    end=st.sampled_from(["\n", "\r\n"]),
    is_cut=st.booleans(),
    has_mark=st.booleans(),
    has_empty=st.booleans(),
    chunk_bytes=st.integers(1, 200),
    block_bytes=st.integers(1, 200),
    group=st.integers(1, 5),
)
def test_every_format_gives_the_same_rows_for_any_sizes(
    rows: list[Row],
    end: str,
    is_cut: bool,
    has_mark: bool,
    has_empty: bool,
    chunk_bytes: int,
    block_bytes: int,
    group: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    texts = {
        "x.csv": csv_text(rows, end),
        "x.tsv": tab_text(NAMES, rows, end),
        "x.inter": tab_text(TYPED, rows, end),
        "x.jsonl": json_text(rows, end, is_ascii=has_mark),
        "y.tsv": tab_text(NAMES, rows, end).replace("\t", "::") if not any("::" in str(row) for row in rows) else "",
    }
    contents = {"x.parquet": parquet_bytes(rows, group)}
    for name, text in texts.items():
        edited = text.removesuffix(end) if is_cut and not text.endswith(f"\t{end}") else text
        edited = edited.replace(end, end * 2) if has_empty and name != "x.csv" else edited
        contents[name] = (("\ufeff" if has_mark else "") + edited).encode()
    contents |= {"x.csv.gz": gzip.compress(contents["x.csv"]), "x.jsonl.bz2": bz2.compress(contents["x.jsonl"])}
    contents["z.inter.zst"] = pa.compress(contents["x.inter"], "zstd", asbytes=True)
    for name, content in contents.items():
        if not texts.get(name, "-"):
            continue
        (folder / name).write_bytes(content)
        options: dict[str, Any] = {"delimiter": "::", "quotes": False} if name == "y.tsv" else {}
        source = source_of("recbole" if ".inter" in name else "table", str(folder / name), **options)
        with mock.patch.object(delimited_layout, "_QUOTED_BLOCK_BYTES", 400):
            parts = rows_with_nulls(source, chunk_bytes, block_bytes)
        whole = rows_with_nulls(source)
        assert parts.combine_chunks() == whole.combine_chunks(), name
        assert parts.schema.field("timestamp").metadata == whole.schema.field("timestamp").metadata
        found = list(zip(*(whole.column(column).to_pylist() for column in ("user", "item")), strict=True))
        assert found == [row[:2] for row in rows], name
        if name == "x.parquet":
            expected = whole.column("timestamp").to_pylist()
        assert whole.column("timestamp").to_pylist() == expected, name


def test_blocks_leave_out_rows_with_nulls_and_count_them(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("user\titem\ttimestamp\nu\ti\t5\n\ti\t6\nu\tj\t\nv\tj\t7\n")
    source = source_of("table", str(tmp_path / "x.tsv"))
    blocks = list(all_blocks(source, source.chunks(9), 9))
    assert [block.num_read for block in blocks] == [1, 1, 1, 1]
    assert [block.dropped["rows_with_null"] for block in blocks] == [0, 1, 1, 0]
    assert [chunk.number for chunk in source.chunks(9)] == [0, 1]
    assert sum(block.rows.num_rows for block in blocks) == 2
    assert collected_rows(source).dropped == {"rows_with_null": 2}


GOOD = [f"u{n}\ti{n}\t{n}" for n in range(30)]


def spoilt(at: int, line: str) -> str:
    return "\n".join(["user\titem\ttimestamp", *GOOD[:at], line, *GOOD[at:]]) + "\n"


@pytest.mark.parametrize("sizes", [(1 << 30, 1 << 20), (40, 10), (1, 1), (1 << 30, 25)])
def test_the_row_of_a_mistake_does_not_depend_on_chunks_and_blocks(sizes: tuple[int, int], tmp_path: Path) -> None:
    def refused(name: str, text: str, match: str, **options: Any) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=match):
            rows_with_nulls(source_of("table", str(tmp_path / name), **options), *sizes)

    refused("x.tsv", spoilt(20, "u\ti\tsoon"), r"x\.tsv: column timestamp is 'soon' in row 21 of 31 \(header not")
    refused("x.tsv", spoilt(20, "u\ti\t99999999999999999999"), r"in row 21 of 31 .*64 bits")
    refused("x.tsv", spoilt(20, "u\ti"), r"x\.tsv: row 22 has 2 columns, expected 3 separated by tabs \('u.ti'\)")
    late = spoilt(20, "u\ti\tx").partition("\n")[2].replace("\t", "::")
    options = {"delimiter": "::", "columns": "user,item,timestamp"}
    refused("x.tsv", late, r"column timestamp is 'x' in row 21 of 31", **options)
    refused(
        "x.tsv", late.replace("u::i::x", "u::i"), r"row 21 has 2 columns, .*separated by '::' \('u::i'\)", **options
    )
    lines = [f'{{"user": "u{n}", "item": "i{n}", "timestamp": {n}}}' for n in range(30)]
    lines[20] = '{"user": 5, "item": "i", "timestamp": 5}'
    refused("x.jsonl", "\n".join(lines), r"x\.jsonl: column user is 5 in row 21, after text in the rows before")
    lines[20] = '{"user": 5, '
    refused("x.jsonl", "\n".join(lines), r"x\.jsonl: row 21 is not valid JSON")
    mixed = [f"u{n}\ti{n}\t{'2020-01-01' if n == 20 else n}" for n in range(30)]
    refused("x.tsv", "\n".join(["user\titem\ttimestamp", *mixed]), "x.tsv: .*mixes numbers and dates, write one")
    rounded = [f"u{n}\ti{n}\t{'9007199254740993' if n == 20 else f'{n}.0'}" for n in range(30)]
    refused("x.tsv", "\n".join(["user\titem\ttimestamp", *rounded]), r"9007199254740993.*exact only below 2\^53")


def test_folders_globs_and_several_inputs(tmp_path: Path) -> None:
    left_out = ("a/_tmp/x.csv", "_SUCCESS", ".part.crc", "b/none.csv", "README.md")
    for place, name in enumerate(("b/part-1.csv", "a/part-0.csv", *left_out)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if "none" in name else f"user,item,timestamp\nu{place},i,{place}\n")
    users = lambda *paths: rows_with_nulls(source_of("table", paths)).column("user").to_pylist()  # noqa: E731
    assert users(str(tmp_path)) == ["u1", "u0"]
    assert users(str(tmp_path / "*" / "part-*.csv")) == ["u1", "u0"]
    assert users(str(tmp_path / "**" / "*.csv")) == ["u1", "u0"]
    assert users(str(tmp_path / "?")) == ["u1", "u0"]
    assert users(str(tmp_path / "b"), str(tmp_path / "a" / "part-0.csv")) == ["u0", "u1"]
    with pytest.raises(InputError, match=r"part-0\.csv: is named twice by --input"):
        users(str(tmp_path), str(tmp_path / "a" / "part-0.csv"))
    with pytest.raises(InputError, match=r"\*\.jsonl: no file has such a name"):
        users(str(tmp_path / "*.jsonl"))
    (tmp_path / "a" / "x.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"two kinds, .*part-0\.csv \(\.csv\) and .*x\.jsonl \(\.jsonl\)"):
        users(str(tmp_path))
    dataset = prepare(
        "table", str(tmp_path / "d"), [str(tmp_path / "b"), str(tmp_path / "a/part-0.csv")],
        min_user_interactions=1, min_item_interactions=1,
    )  # fmt: skip
    assert dataset.manifest["source"]["path"] == [str(tmp_path / "b"), str(tmp_path / "a/part-0.csv")]


def test_names_of_folders_are_columns_only_if_they_are_asked_for_and_the_file_has_none(tmp_path: Path) -> None:
    for event, kind in (("view", "a"), ("buy", "b"), ("__HIVE_DEFAULT_PARTITION__", "c"), ("add%20to", "d")):
        folder = tmp_path / "root" / f"event={event}" / "item=9"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"user": [kind], "item": ["own"], "timestamp": [5]}), folder / "part-0.parquet")
    root = str(tmp_path / "root")
    assert set(rows_with_nulls(source_of("table", root)).column("item").to_pylist()) == {"own"}
    kept = rows_with_nulls(source_of("table", root, keep=["event in (view, 'add to')"]))
    assert sorted(kept.column("user").to_pylist()) == ["a", "d"]
    named = rows_with_nulls(source_of("table", root, item_column="event"))
    of_users = dict(zip(named.column("user").to_pylist(), named.column("item").to_pylist(), strict=True))
    assert of_users == {"a": "view", "b": "buy", "c": None, "d": "add to"}
    with pytest.raises(InputError, match="no column 'event' among 'user', 'item', 'timestamp'"):  # not below the input
        rows_with_nulls(source_of("table", f"{root}/event=view/item=9", keep=["event = view"]))


def test_files_without_a_header_or_without_timestamps(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_text("1::10::5::978300760\n2::11::3::978300761\n")
    source = source_of("table", str(tmp_path / "r.dat"), delimiter="::", columns="user,item,_,timestamp")
    assert rows_with_nulls(source).column("user").to_pylist() == ["1", "2"]
    assert rows_with_nulls(source).column("item").to_pylist() == ["10", "11"]
    assert rows_with_nulls(source).column("timestamp").to_pylist() == [978300760, 978300761]
    assert collected_rows(source).timestamp_unit == "s"
    (tmp_path / "x.csv").write_text("user,item\na,i\na,j\na,i\n")
    options = {"timestamp_column": "none", "min_user_interactions": 1, "min_item_interactions": 1}
    dataset = prepare("table", str(tmp_path / "d"), str(tmp_path / "x.csv"), **options)
    assert dataset.timestamps is None
    assert dataset.items.tolist() == [0, 1, 0]  # the repeat is no duplicate
    with pytest.raises(InputError, match="the data has no timestamps; use --split leave-one-out"):
        prepare("table", str(tmp_path / "e"), str(tmp_path / "x.csv"), split="global-time", **options)
    for bad, message in (("", "cannot separate"), ("\n", "cannot separate")):
        with pytest.raises(InputError, match=message):
            source_of("table", str(tmp_path / "x.csv"), delimiter=bad or '"')
    (tmp_path / "x.tsv").write_text('"user"\t"item"\t"timestamp"\n"a"\t"i"\t5\n')
    assert rows_with_nulls(source_of("table", str(tmp_path / "x.tsv"), quotes=True)).num_rows == 1
    with pytest.raises(InputError, match=r"x\.tsv: header '\"user\"' is in quotes; add --quotes"):
        rows_with_nulls(source_of("table", str(tmp_path / "x.tsv")))
    with pytest.raises(InputError, match="only a delimiter of one character can go with quotes; add --no-quotes"):
        source_of("table", str(tmp_path / "x.csv"), delimiter="::", quotes=True)


def halved(text: bytes) -> bytes:
    return text[: len(text) // 2]


def overwritten(text: bytes) -> bytes:
    return text[:200] + b"\0" * 40 + text[240:]


@pytest.mark.parametrize("damage", [halved, overwritten])
@pytest.mark.parametrize("name", ["x.csv.gz", "x.tsv.gz", "x.jsonl.gz", "x.csv.zst", "x.tsv.zst", "x.jsonl.bz2"])
def test_a_damaged_or_truncated_compressed_file_is_one_line(
    damage: Callable[[bytes], bytes], name: str, tmp_path: Path
) -> None:
    rows: list[Row] = [(f"u{n * 7919 % 1009}", f"i{n * 104729 % 997}", str(n * n)) for n in range(3000)]
    texts = {"csv": csv_text(rows, "\n"), "tsv": tab_text(NAMES, rows, "\n"), "jsonl": json_text(rows, "\n", False)}
    text = texts[name.split(".")[1]].encode()
    packed = {
        "gz": gzip.compress, "bz2": bz2.compress, "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }[name.rpartition(".")[2]](text)  # fmt: skip
    (tmp_path / name).write_bytes(damage(packed))
    # Without a checksum, damaged bytes may decompress to other text.
    reason = "" if name.endswith(".zst") and damage is overwritten else r"cannot be decompressed \(.+\); it is damaged"
    with pytest.raises(InputError, match=rf"{name}: {reason}"):
        rows_with_nulls(source_of("table", str(tmp_path / name)))


def test_a_quote_that_never_closes_in_a_large_file_is_named(tmp_path: Path) -> None:
    rows = "".join(f"u{n},i{n},{n}\n" for n in range(300))
    (tmp_path / "x.csv").write_text(f'user,item,timestamp\n"u,i,5\n{rows}')
    with (
        mock.patch.object(delimited_layout, "_QUOTED_BLOCK_BYTES", 400),
        pytest.raises(
            InputError, match=r"x\.csv: row 1 \(header not counted\) is longer than 0 MiB, perhaps because a quote"
        ),
    ):
        rows_with_nulls(source_of("table", str(tmp_path / "x.csv")))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('u1,i1,5,ok\nu1,i2,6,"broken\nu1,i3,7,fine\n', 2),
        ('u1,i1,5,5" pipe\nu1,i2,6,"cut off', 2),  # a quote inside a value is a character
        ('u1,i1,5,x\nu1,i2,6,x\nu1,i3,7,"', 3),
        ('u1,i1,5,"ends in a quote""', 1),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_quote_in_the_last_column_that_never_closes_is_named(text: str, row: int, name: str, tmp_path: Path) -> None:
    content = f"user,item,timestamp,comment\n{text}".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(
        InputError, match=rf"{name}: a quote that opens in row {row} \(.*user 'u1', item 'i{row}'.*never"
    ):
        rows_with_nulls(source_of("table", str(tmp_path / name)))


def test_a_quote_in_the_header_that_never_closes_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('user,item,timestamp,"comment\nu1,i1,5,x\nu1,i2,6,x\n')
    with pytest.raises(InputError, match=r"x\.csv: the header cannot be read .*a quote in it never closes, close it"):
        rows_with_nulls(source_of("table", str(tmp_path / "x.csv")))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_texts_over_several_lines_are_whole_whatever_the_file_ends_with(ending: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(f'user,timestamp,item\nu1,5,"a\n5"" b"\nu1,6,"c,""d"""{ending}'.encode())
    rows = rows_with_nulls(source_of("table", str(tmp_path / "x.csv")))
    assert rows.column("item").to_pylist() == ['a\n5" b', 'c,"d"']


def test_lists_are_users_and_their_items(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("u1 a  b\ta\r\n\n  u2 c\nu3\nu1 d")
    source = source_of("lists", str(tmp_path / "s.txt"))
    for sizes in ((1, 1), (9, 3), (1 << 20, 1 << 20)):
        rows = rows_with_nulls(source, *sizes)
        assert rows.column("user").to_pylist() == ["u1", "u1", "u1", "u2", "u3", "u1"]
        assert rows.column("item").to_pylist() == ["a", "b", "a", "c", None, "d"]
    assert collected_rows(source).dropped == {"rows_with_null": 1}
    assert collected_rows(source).rows.column_names == ["user", "item"]


def test_lists_of_beauty_become_its_dataset(tmp_path: Path) -> None:
    file = REAL / "beauty" / "sequences.txt"
    if not file.is_file():
        pytest.skip(f"no real data at {file}")
    dataset = prepare("lists", str(tmp_path / "d"), str(file))
    lines = [line.split() for line in file.read_text().splitlines()]
    assert (dataset.num_users, dataset.num_interactions) == (len(lines), sum(len(line) - 1 for line in lines))
    names = dataset.item_source_ids().to_pylist()
    users = dataset.user_source_ids().to_pylist()
    for user in (0, 1, len(lines) - 1):
        line = lines[user]
        assert users[user] == line[0]
        start, stop = dataset.offsets[user : user + 2]
        assert [names[item] for item in dataset.items[start:stop]] == line[1:]


def test_the_split_of_a_source_is_read(tmp_path: Path) -> None:
    text = "userID\titemID\ttimestamp\tx_label\n0\t5\t7\t0\n0\t6\t8\t1\n0\t7\t9\t2\n"
    (tmp_path / "baby.inter").write_text(text)
    source = FileSource(
        name="baby",
        files=find_files([str(tmp_path / "baby.inter")], lambda _: "inter", ""),
        layout=DelimitedLayout(delimiter="\t", quoted=False),
        columns={"user": "userID", "item": "itemID", "timestamp": "timestamp", "split": "x_label"},
        parameters={},
    )
    rows = collected_rows(source).rows
    assert rows.schema.field("split").type == pa.int8()
    assert rows.column("split").to_pylist() == [0, 1, 2]
    (tmp_path / "baby.inter").write_text(text.replace("9\t2", "9\t3"))
    with pytest.raises(InputError, match=r"column x_label is '3' in row 3 of 3 .*, expected one of '0', '1', '2'"):
        collected_rows(source)

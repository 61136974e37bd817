"""Tables: only the requested columns are read, by explicit types; one rule for empty ids; clear refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.formats import json_lines
from data.formats.delimited import read_delimited
from data.formats.unisrec import read_unisrec
from jobs.prepare_data import prepare
from tests.data.read_rows import read_recbole, read_table
from tests.data.small_files import write_index, write_rows, write_unisrec

EVERYTHING = {"min_user_interactions": 1, "min_item_interactions": 1}


def write(file: Path, *lines: str, ending: str = "\n") -> str:
    file.write_bytes("".join(line + ending for line in lines).encode())
    return str(file)


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in ("user", "item", "timestamp")), strict=True))


def test_unused_columns_of_json_lines_may_hold_anything(tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.jsonl",
        '{"user": "u1", "item": "i1", "timestamp": 5, "price": "free", "tags": [1]}',
        '{"user": "u2", "item": "i2", "timestamp": 6, "price": 3.5, "tags": {"a": null, "b": %s}}' % ("9" * 5000),
    )
    assert rows_of(read_table(file)) == [("u1", "i1", 5), ("u2", "i2", 6)]


def test_json_ids_that_look_like_dates_or_numbers_stay_text(tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.jsonl",
        '{"user": "2020-01-01", "item": "007", "timestamp": 5}',
        '{"item": "8", "timestamp": 6, "user": "2020-01-02T10:11:12Z"}',
    )
    assert rows_of(read_table(file)) == [("2020-01-01", "007", 5), ("2020-01-02T10:11:12Z", "8", 6)]


def test_json_ids_of_two_types_are_named_with_their_row(tmp_path: Path) -> None:
    good = '{"user": 1, "item": "i1", "timestamp": 5}'
    bad = {
        '{"user": "1", "item": "i1", "timestamp": 5}': "column user is '1' in row 2, after numbers",
        '{"user": 1.5, "item": "i1", "timestamp": 5}': r"column user is 1\.5 in row 2, expected text or a whole number",
        '{"user": true, "item": "i1", "timestamp": 5}': "column user is True in row 2, expected text or a whole number",
        '{"user": 1, "item": ["a"], "timestamp": 5}': r"column item is \['a'\] in row 2, expected text or a whole",
        '{"user": 99999999999999999999, "item": "i", "timestamp": 5}': "column user is 9{20} in row 2, .*64 bits",
    }
    for line, message in bad.items():
        for ending in ("\n", "\r\n"):
            with pytest.raises(InputError, match=rf"x\.jsonl: {message}"):
                read_table(write(tmp_path / "x.jsonl", good, line, ending=ending))
    with pytest.raises(InputError, match=r"column user is \['u'\] in row 1, expected text or a whole number"):
        read_table(write(tmp_path / "x.jsonl", '{"user": ["u"], "item": "i1", "timestamp": 5}'))


def test_json_columns_may_begin_late_and_be_absent(tmp_path: Path) -> None:
    late = ['{"item": "i", "timestamp": null}'] * 2000
    file = write(tmp_path / "x.jsonl", *late, '{"user": "u", "item": "i", "timestamp": 7}')
    table = read_table(file)
    assert table.num_rows == 2001
    assert rows_of(table)[-1] == ("u", "i", 7)
    with pytest.raises(InputError, match=r"x\.jsonl: no column 'who' among 'item', 'timestamp', 'user'; name it with"):
        read_table(file, "who")


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", '\ufeff{"user": "u", "item": "i", "timestamp": 7}', ending="\r\n")
    assert rows_of(read_table(file)) == [("u", "i", 7)]


def test_json_that_is_no_row_an_object_is_refused(tmp_path: Path) -> None:
    rows = '[{"user": 1, "item": 2, "timestamp": 3}]'
    for text in (rows, "5", '"user"', "null"):
        with pytest.raises(InputError, match=r"x\.jsonl: row 1 is .*, expected one JSON object a line"):
            read_table(write(tmp_path / "x.jsonl", text))


def test_unused_columns_of_csv_and_parquet_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"user,item,name,timestamp,name\nu,i,Jos\xe9,5,\n")
    assert rows_of(read_table(str(tmp_path / "x.csv"))) == [("u", "i", 5)]
    names = ["user", "item", "timestamp", "extra", "extra"]
    columns = [pa.array(["u"]), pa.array(["i"]), pa.array([5]), pa.array([b"\xff"]), pa.array([[1]])]
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "x.parquet")
    assert rows_of(read_table(str(tmp_path / "x.parquet"))) == [("u", "i", 5)]


def test_other_columns_of_text_are_not_kept_in_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "a,b,c", "1,2,3")
    table = read_delimited(file, delimiter=",", quoted=True, columns=["c", "a"])
    assert table.to_pydict() == {"c": ["3"], "a": ["1"]}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_json_is_looked_at_in_chunks_of_any_size(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_CHUNK_CHARACTERS", size)
    lines = [f'{{"item": "ï{n}\\u00e9\\"", "timestamp": {n}}}' for n in range(9)]
    file = write(tmp_path / "x.jsonl", *lines, '{"user": "u", "item": 5, "timestamp": 7}')
    with pytest.raises(InputError, match="column item is 5 in row 10, after text in the rows before"):
        read_table(file)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_headers_of_csv_are_parsed_as_csv(ending: str, tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", 'user,item,timestamp,"price,item"', "u,i,5,9", ending=ending)
    assert rows_of(read_table(file)) == [("u", "i", 5)]
    file = write(tmp_path / "x.csv", '"user","the ""item""",timestamp', "u,i,5", ending=ending)
    assert rows_of(read_table(file, item_column='the "item"')) == [("u", "i", 5)]
    file = write(tmp_path / "x.csv", '"us\ner",item,timestamp', "u,i,5", ending=ending)
    assert rows_of(read_table(file, "us\ner")) == [("u", "i", 5)]
    for before in ("\ufeff", ending * 2, f"\ufeff{ending}{ending}"):
        file = write(tmp_path / "x.csv", f"{before}user,item,timestamp", "u,i,5", ending=ending)
        assert rows_of(read_table(file)) == [("u", "i", 5)]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_csv_that_needs_commas_says_what_it_has(separator: str, name: str, tmp_path: Path) -> None:
    for quote in ("", '"'):
        names = ("item", "timestamp", "rating", "user")
        header = separator.join(f"{quote}{column}{quote}" for column in names)
        file = write(tmp_path / "x.csv", header, separator.join("ui5"))
        with pytest.raises(InputError, match=rf"x\.csv: .*separated by {name}, expected .*separated by commas"):
            read_table(file)


def test_json_that_breaks_off_is_named_with_its_row(tmp_path: Path) -> None:
    good = '{"user": "u", "item": "i", "timestamp": 5}'
    for lines, row in (([good[:-1], good], 1), ([good, good, good[:20]], 3)):
        with pytest.raises(InputError, match=rf"x\.jsonl: row {row} is not valid JSON"):
            read_table(write(tmp_path / "x.jsonl", *lines))


def test_a_space_in_a_header_is_shown(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "user, item,timestamp", "u,i,5")
    with pytest.raises(
        InputError, match=r"no column 'item' among 'user', ' item', 'timestamp'; name it with --item-co"
    ):
        read_table(file)
    assert rows_of(read_table(file, item_column=" item")) == [("u", "i", 5)]


@pytest.mark.parametrize("separator", [" ", ",", ";", "    "])
def test_inter_files_say_that_they_need_tabs_and_what_they_have(separator: str, tmp_path: Path) -> None:
    names = {" ": "spaces", ",": "commas", ";": "semicolons", "    ": "spaces"}
    header = ["user_id:token", "item_id:token", "timestamp:float"]
    file = write(tmp_path / "x.inter", separator.join(header), separator.join("ui5"))
    found = rf"x\.inter: .*separated by {names[separator]}, expected .*separated by tabs"
    with pytest.raises(InputError, match=found):
        read_recbole(file)
    file = write(tmp_path / "x.inter", "\t".join(header), separator.join("ui5"))
    with pytest.raises(InputError, match=r"x\.inter: row 2 has 1 columns, expected 3 separated by tabs \('u"):
        read_recbole(file)
    write_unisrec(tmp_path / "u", [[0, 1, 2, 3]])
    sequential = tmp_path / "u" / "Toy.test.inter"
    sequential.write_text(sequential.read_text().replace("\t", separator))
    with pytest.raises(InputError, match=found.replace("x", "Toy.test", 1)):
        read_unisrec(str(tmp_path / "u"))


def test_only_the_three_columns_of_an_inter_file_are_read(tmp_path: Path) -> None:
    text = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ti\t\xe9\t5\n"
    (tmp_path / "x.inter").write_bytes(text)
    assert rows_of(read_recbole(str(tmp_path / "x.inter"))) == [("u", "i", 5)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "inter"])
def test_rows_with_an_empty_id_or_time_go_and_are_counted_in_every_format(suffix: str, tmp_path: Path) -> None:
    rows = [("u", "i", "5"), ("", "i", "5"), ("u", "", "5"), ("u", "i", ""), (None, "i", "5"), ("u", " ", "7")]
    file = tmp_path / f"x.{suffix}"
    names = ("user", "item", "timestamp")
    if suffix == "parquet":
        pq.write_table(pa.table({name: [row[n] for row in rows] for n, name in enumerate(names)}), file)
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    elif suffix == "csv":
        write(file, ",".join(names), *(",".join(part or "" for part in row) for row in rows))
    else:
        header = ("user_id:token", "item_id:token", "timestamp:float")
        write(file, *("\t".join(part or "" for part in row) for row in (header, *rows)))
    dataset = prepare("recbole" if suffix == "inter" else "table", str(tmp_path / "d"), str(file), **EVERYTHING)
    assert dataset.user_source_ids().to_pylist() == ["u"]
    assert dataset.item_source_ids().to_pylist() == ["i", " "]  # a space is an id
    assert dataset.manifest["dropped"]["rows_with_null"] == 4


def test_an_index_file_with_an_empty_id_is_refused(tmp_path: Path) -> None:
    write_unisrec(tmp_path, [[0, 1, 2, 3]])
    write_index(tmp_path, 1, 4)
    (tmp_path / "Toy.item2index").write_text("a\t0\n\t1\nc\t2\nd\t3\n")
    with pytest.raises(InputError, match=r"Toy\.item2index: row 2 has no id; name every item and user"):
        read_unisrec(str(tmp_path))


def test_ids_of_columns_of_any_sound_type(tmp_path: Path) -> None:
    names = ["7", "8", "7"]
    kinds = [pa.string(), pa.large_string(), pa.int8(), pa.uint64(), pa.decimal128(30, 0)]
    for kind in kinds:
        column = pa.array(names).cast(pa.int64()).cast(kind)
        for users in (column, column.dictionary_encode()) if not pa.types.is_decimal(kind) else (column,):
            table = pa.table({"user": users, "item": names, "timestamp": [1, 2, 3]})
            pq.write_table(table, tmp_path / "x.parquet")
            assert read_table(str(tmp_path / "x.parquet")).column("user").to_pylist() == names
    for kind, shown in ((pa.decimal128(12, 2), "decimal128"), (pa.bool_(), "bool"), (pa.date32(), "date32")):
        users = pa.array([1, 0, 1], pa.int32()).cast(kind)
        pq.write_table(pa.table({"user": users, "item": names, "timestamp": [1, 2, 3]}), tmp_path / "x.parquet")
        with pytest.raises(InputError, match=rf"column user is {shown}.*, ids must be text or whole numbers"):
            read_table(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.csv.xz", "is compressed; decompress it first, or compress it as .gz, .bz2 or .zst"),
        ("x.parquet.zst", "a Parquet file is compressed inside, not as a whole; decompress it first"),
        ("x.csv.zst", "cannot be decompressed .*; it is damaged or cut off, restore it"),
        ("x.zip", "is compressed; decompress it first"),
        ("x.xlsx", r"suffix '\.xlsx' is not \.parquet, \.csv, \.tsv or \.jsonl; if it is delimited text, name its"),
        ("x", r"suffix '' is not \.parquet, \.csv, \.tsv or \.jsonl; if"),
    ],
)
def test_other_formats_are_refused_with_the_next_move(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"user,item,timestamp\nu,i,5\n"))
    with pytest.raises(InputError, match=rf"{name}: .*{advice}"):
        read_table(str(tmp_path / name))


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without data files; --format table reads"):
        read_table(str(tmp_path))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_has_one_role(suffix: str, tmp_path: Path) -> None:
    rows = {"user": ["u"], "item": ["i"], "timestamp": [5]}
    file = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table(rows), file)
    else:
        line = {"csv": "user,item,timestamp\nu,i,5", "jsonl": '{"user": "u", "item": "i", "timestamp": 5}'}[suffix]
        write(file, line)
    with pytest.raises(InputError, match="column 'item' is named for both user and item; name one for each"):
        read_table(str(file), user_column="item")


def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path) -> None:
    assert rows_of(read_table(write(tmp_path / "X.CSV", "user,item,timestamp", "u,i,5"))) == [("u", "i", 5)]


def test_a_byte_order_mark_and_windows_line_ends_in_sequential_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "Toy.valid.inter", [(0, [2, 0], 1)], ending="\r\n")
    write_rows(tmp_path / "Toy.test.inter", [(0, [2, 0, 1], 2)], ending="\r\n")
    (tmp_path / "Toy.item2index").write_bytes("\ufeffa\t0\r\nb\t1\r\nc\u2028d\t2\r\n".encode())
    assert read_unisrec(str(tmp_path)).item_source_ids.to_pylist() == ["a", "b", "c\u2028d"]

"""Files that are nearly right: incomplete splits, swapped columns, headers, separators, encodings, titles not found."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.formats import item_files
from jobs.prepare_data import prepare
from tests.data import release_files as release
from tests.data.read_rows import rows_with_nulls, source_of

ALL = {"min_user_interactions": 1, "min_item_interactions": 1}
TABLE = "user,item,timestamp\nu1,i1,1\nu2,i2,2\n"


def written(folder: Path, name: str, text: str | bytes) -> str:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder / name)


def refused(kind: str, path: Any, match: str, **options: Any) -> None:
    with pytest.raises(InputError, match=match):
        rows_with_nulls(source_of(kind, str(path), **options))


def test_amazon2023_reads_training_then_validation_then_test(tmp_path: Path) -> None:
    for name in ("A", "B"):
        for place, part in enumerate(
            ("test", "train", "valid")
        ):  # at the same time, so that the order of files decides
            row = f"u,{name}-{part},5.0,{1588687728123 + (name == 'B') * place}"
            written(tmp_path, f"{name}.{part}.csv", f"user_id,parent_asin,rating,timestamp\n{row}\n")
    rows = rows_with_nulls(source_of("amazon2023", str(tmp_path)))
    assert rows["item"].to_pylist() == [f"{name}-{part}" for part in ("train", "valid", "test") for name in "AB"]
    assert rows["split"].to_pylist() == [0, 0, 1, 1, 2, 2]


def test_amazon2023_refuses_incomplete_and_mixed_splits(tmp_path: Path) -> None:
    release.amazon2023_ratings(tmp_path)
    (tmp_path / "All_Beauty.valid.csv").rename(tmp_path / "x.valid")
    missing = r"All_Beauty\.test\.csv: is part of a split, without \S*/All_Beauty\.valid\.csv; name all of"
    refused("amazon2023", tmp_path, missing)
    (tmp_path / "x.valid").rename(tmp_path / "All_Beauty.valid.csv")
    written(tmp_path, "All_Beauty.csv", (tmp_path / "All_Beauty.train.csv").read_bytes())
    mixed = r"All_Beauty\.csv and \S*All_Beauty\.test\.csv: the first has no split.*such as '\S*/All_Beauty\.\*\.csv'"
    refused("amazon2023", tmp_path, mixed)
    assert rows_with_nulls(source_of("amazon2023", f"{tmp_path}/All_Beauty.*.csv")).num_rows == 5


def test_ratings_of_2014_are_recognised_by_their_ids_or_their_name(tmp_path: Path) -> None:
    advice = "the user first, .* use --format table --columns user,item,rating,timestamp$"
    odd = "A0XXXXXXXXXXXX,B0000000000,5.0,1472688000\nA1YJEY40YUW4SE,0205616461,5.0,1472688000\n"
    refused("amazon2018", written(tmp_path, "X.csv", odd), advice)
    refused("amazon2018", written(tmp_path, "ratings_X.csv", "u1,i1,5.0,1472688000\n"), advice)
    right = "i1,A1YJEY40YUW4SE,5.0,1472688000\n"
    rows = rows_with_nulls(source_of("amazon2018", written(tmp_path, "ratings_Y.csv", right)))
    assert rows["user"].to_pylist() == ["A1YJEY40YUW4SE"]


def test_metadata_of_2014_is_found_beside_its_reviews(tmp_path: Path) -> None:
    review = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1472688000}
    reviews = release.json_lines(tmp_path / "reviews_Beauty_5.json.gz", [review])
    release.json_lines(tmp_path / "meta_Beauty.json.gz", [{"asin": "B1", "title": "Soap"}])
    table = source_of("amazon2018", str(reviews)).item_columns()
    assert table is not None
    assert table.to_pydict() == {"item": ["B1"], "text": ["Soap"]}


@pytest.mark.parametrize(
    ("kind", "make", "name", "sought"),
    [
        ("amazon2023", release.amazon2023_ratings, "", "meta_All_Beauty.json(l)"),
        ("amazon2018", release.amazon2018_ratings, "meta_All_Beauty.json.gz", "meta_All_Beauty.json(l)"),
        ("movielens", release.movielens_csv, "movies.csv", "movies.csv"),
        ("mmrec", release.mmrec, "", "meta-baby.csv"),
        ("recbole", release.recbole, "ml-100k.item", "ml-100k.item"),
    ],
)
def test_titles_that_are_not_found_are_named(kind: str, make: Any, name: str, sought: str, tmp_path: Path) -> None:
    make(tmp_path)
    if name:
        assert source_of(kind, str(tmp_path)).looked_for == ()
        (tmp_path / name).unlink()
    source = source_of(kind, str(tmp_path))
    assert source.looked_for == (str(tmp_path / sought),)
    assert "looked_for" not in source.parameters
    with pytest.raises(InputError) as refusal:
        source_of(kind, str(tmp_path), title_column=["brand"])
    expected = f"--title-column: is about the file of --items; found no {tmp_path / sought}; add --items FILE"
    assert str(refusal.value) == expected


def test_a_line_says_which_titles_were_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release.movielens_csv(tmp_path)
    (tmp_path / "movies.csv").unlink()
    prepare("movielens", str(tmp_path / "d"), str(tmp_path), **ALL)
    line = f"no titles: found no {tmp_path}/movies.csv; --items names a file that has them\n"
    assert capsys.readouterr().out.count(line) == 1


def test_items_with_another_separator(tmp_path: Path) -> None:
    table = written(tmp_path, "x.csv", TABLE)
    options = {"items": written(tmp_path, "items.csv", "item;title\ni1;Red, soft\n"), "title_column": ["title"]}
    with pytest.raises(InputError, match=r"separated by semicolons.*or name its separator with --item-delimiter$"):
        source_of("table", table, **options).item_columns()
    texts = [source_of("table", table, item_delimiter=";", **options)]
    names = {"item_names": "item,title", "title_column": ["title"]}
    dat = written(tmp_path, "items.dat", "i1::Red, soft\n")
    with pytest.raises(InputError, match=r"name its separator with --item-delimiter$"):
        source_of("table", table, items=dat, **names)
    texts.append(source_of("table", table, items=dat, item_delimiter="::", **names))
    tabs = written(tmp_path, "items.txt", "i1\tRed, soft\n")
    texts.append(source_of("table", table, items=tabs, item_delimiter="tab", **names))
    for source in texts:
        found = source.item_columns()
        assert found is not None
        assert found.to_pydict() == {"item": ["i1"], "text": ["Red, soft"]}


LISTS: list[tuple[Any, str | None]] = [
    (["a", None, ["b", [3, "c", None]]], "a b 3 c"),
    ([1, 2.5], "1 2.5"),
    ([None, []], None),
    ("Text", "Text"),
    (["d", None], "d"),
    (None, None),
    ({"k": [1]}, '{"k": [1]}'),
]


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize("is_carried", [False, True])
def test_lists_of_any_kind_become_text(
    block_bytes: int, is_carried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_files, "_BLOCK_BYTES", block_bytes)
    rows = [{"item": f"i{n}", "title": value} for n, (value, _) in enumerate(LISTS)]
    file = release.json_lines(tmp_path / "items.jsonl", rows)
    options = {"items": str(file), "title_column": ["title"]} | ({"item_columns": "title"} if is_carried else {})
    table = source_of("table", written(tmp_path, "x.csv", TABLE), **options).item_columns()
    assert table is not None
    assert table["text"].to_pylist() == [text for _, text in LISTS]
    if is_carried:
        assert table["title"].to_pylist()[0] == '["a", null, ["b", [3, "c", null]]]'  # as it is


def test_lists_in_parquet_become_text(tmp_path: Path) -> None:
    nested = pa.array([[["a", None], None, ["b"]], None, []], pa.list_(pa.list_(pa.string())))
    numbers = pa.array([[1, None, 3], [], None], pa.list_(pa.int64()))
    pq.write_table(pa.table({"item": ["i1", "i2", "i3"], "a": nested, "b": numbers}), tmp_path / "items.parquet")
    options = {"items": str(tmp_path / "items.parquet"), "title_column": ["a", "b"]}
    table = source_of("table", written(tmp_path, "x.csv", TABLE), **options).item_columns()
    assert table is not None
    assert table["text"].to_pylist() == ["a b 1 3", None, None]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.csv.gz"])
def test_names_of_columns_for_a_file_with_a_header(name: str, tmp_path: Path) -> None:
    text = TABLE.replace(",", "\t") if name == "x.tsv" else TABLE
    path = written(tmp_path, name, gzip.compress(text.encode()) if name.endswith(".gz") else text)
    refused(
        "table", path, "the file has a header, 'user,item,timestamp'; leave out --columns", columns="user,_,timestamp"
    )
    refused("table", path, "the file has a header", columns="user, item, timestamp", timestamp_column="none")
    rows = rows_with_nulls(source_of("table", path, columns="item,user,_", timestamp_column="none"))
    assert rows.num_rows == 3  # a value like one of the names is no header


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (TABLE, "line 1 is 'user,item,timestamp', a header of a table; .* use --format table$"),
        ("user_id\titem_id\n1\t2\n", "a header of a table"),
        ("u1,i1,5\nu2,i2,4\n", "such as 'u1,i1,5', separated by commas; .* --delimiter ',' and --columns"),
        ("1, 2, 3\n2, 3, 4\n", "such as '1, 2, 3', separated by commas"),
        ("u1|i2\n", "separated by vertical bars"),
        ("u1\nu2\n", "only one word on each line, such as 'u1'"),
        ("1::2::3::978300019\n", "looks like ratings of MovieLens; .* use --format movielens$"),
    ],
)
def test_tables_are_no_lists(text: str, match: str, tmp_path: Path) -> None:
    refused("lists", written(tmp_path, "x.txt", text), match)


def test_lists_may_hold_commas(tmp_path: Path) -> None:
    rows = rows_with_nulls(source_of("lists", written(tmp_path, "x.txt", "u1 a b,c\nu2, d\nu3 a\n4\n")))
    assert rows["item"].to_pylist() == ["a", "b,c", "d", "a", None]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.csv.gz"])
def test_the_command_for_latin_1_converts_the_file(name: str, tmp_path: Path) -> None:
    text = TABLE.replace("u2", "José")
    if name == "x.jsonl":
        text = '{"user": "u1", "item": "i", "timestamp": 1}\n{"user": "José", "item": "i", "timestamp": 2}\n'
    raw = text.replace(",", "\t" if name == "x.tsv" else ",").encode("latin-1")
    written(tmp_path, name, gzip.compress(raw) if name.endswith(".gz") else raw)
    with pytest.raises(InputError, match=r"(line 3 has|column user is) 'Jos\\xe9', which is not UTF-8 text") as refusal:
        rows_with_nulls(source_of("table", str(tmp_path / name)))
    command = str(refusal.value).partition("convert it with ")[2]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    converted = next(tmp_path.glob("*-utf8*"))
    assert rows_with_nulls(source_of("table", str(converted)))["user"].to_pylist() == ["u1", "José"]


def test_parquet_is_not_converted_by_a_command(tmp_path: Path) -> None:
    text = pa.array([b"Jos\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"user": text, "item": ["i"], "timestamp": [1]}), tmp_path / "x.parquet")
    refused("table", tmp_path / "x.parquet", r"user is 'Jos\\xe9'.*; write the file again with text in UTF-8$")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
@pytest.mark.parametrize("columns", [None, "user,item,timestamp"])
def test_utf_16_is_recognised(name: str, columns: str | None, tmp_path: Path) -> None:
    text = '{"user": "u1", "item": "i", "timestamp": 1}\n' if name == "x.jsonl" else TABLE
    options = {"columns": columns} if columns and name != "x.jsonl" else {}
    refused("table", written(tmp_path, name, text.encode("utf-16")), "is UTF-16 text.*iconv -f UTF-16", **options)


def test_latin_1_in_json_lines_of_items(tmp_path: Path) -> None:
    items = written(tmp_path, "items.jsonl", '{"item": "i1", "title": "Cité"}\n'.encode("latin-1"))
    source = source_of("table", written(tmp_path, "x.csv", TABLE), items=items, title_column=["title"])
    with pytest.raises(InputError, match=r"items\.jsonl: line 1 has .*which is not UTF-8 text"):
        source.item_columns()


@pytest.mark.parametrize(
    ("word", "separator"), [("tab", "\t"), ("space", " "), ("\\t", "\t"), ("\\x01", "\x01"), ("\x01", "\x01")]
)
def test_separators_may_be_written_as_words_and_escapes(word: str, separator: str, tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", TABLE.replace(",", separator))
    assert rows_with_nulls(source_of("table", path, delimiter=word))["user"].to_pylist() == ["u1", "u2"]


def test_messages_about_times_and_empty_tables(tmp_path: Path) -> None:
    for text in ("user,item,timestamp", "user,item,timestamp\n"):
        with pytest.raises(InputError, match=r"x\.csv: (has no rows; restore it|none of its 0 rows)"):
            prepare("table", str(tmp_path / "d"), written(tmp_path, "x.csv", text))
    decimals = '{"user": "u", "item": "i", "timestamp": 1.5}\n'
    refused("table", written(tmp_path, "x.jsonl", decimals), r"timestamp is 1\.5 in row 1")
    days = TABLE.replace(",1\n", ",2024/05/01\n").replace(",2\n", ",2024/05/02\n")
    path = written(tmp_path, "days.csv", days)
    refused("table", path, r"'2024/05/01'.*for dates written in another way, --time-format says how$")
    rows = rows_with_nulls(source_of("table", path, time_format="%Y/%m/%d"))
    assert rows["timestamp"].to_pylist() == [1714521600, 1714608000]


def test_tags_of_movielens_are_no_ratings(tmp_path: Path) -> None:
    release.movielens_csv(tmp_path)
    refused("movielens", tmp_path / "tags.csv", r"looks like tags of MovieLens \(the ratings are in ratings\.csv\)")
    refused("movielens", written(tmp_path, "tags.dat", "1::1::so funny::978300019\n"), "ratings are in ratings.dat")

"""Cases of bad input for jobs/prepare_data.py: files of interactions, their rows, and UniSRec's sequential files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import copy, cut, damaged_page, folder, move, remove, replace, table, write

_OUT = "--output {here}/out"
_CSV = f"prepare_data --format table --input {{here}}/raw.csv {_OUT}"
_PARQUET = f"prepare_data --format table --input {{here}}/raw.parquet {_OUT}"
_JSONL = f"prepare_data --format table --input {{here}}/raw.jsonl {_OUT}"
_RECBOLE = f"prepare_data --format recbole --input {{here}}/Toy.inter {_OUT}"
_UNISREC = f"prepare_data --format unisrec --input {{here}}/unisrec {_OUT}"
_ROW = "u3,i4,1300000100\n"
_FLOAT32 = np.array([880394690, 880394632, 880394631] * 3, np.float32)
_LARGE = "".join(f'{{"user": "u", "item": "i", "timestamp": {time}}}\n' for time in ("9007199254740993", "1.0"))
_FRACTION = '{"user": "u", "item": "i", "timestamp": 1300000060.5}\n'
_CUT = gzip.compress(b"user,item,timestamp\n" * 9, mtime=0)[:-12]
_TABLE = "user,item,timestamp\n" + _ROW
_TWO_UNITS = "user,item,timestamp\nu1,i1,1300000000\nu2,i2,1300000000000\n"
_ITEMS = f"{_CSV} --items {{here}}/items.jsonl"
_ITEMS_CSV = f"{_CSV} --items {{here}}/items.csv"
_DESCRIBED = '{"item": "i1", "title": "Shoe"}\n'
_OTHERS = '{"item": "q", "title": "Shoe"}\n'
_NUMBERS = {"user": [1] * 9, "item": list(range(9))}
_DAYS = np.array(["2024-05-01"] * 9, "datetime64[s]")
_DATES = f"{_PARQUET} --keep 'timestamp >= 1714557600'"
_FLAGS = f"{_PARQUET} --timestamp-column none --keep 'new > 0'"


def _two_kinds(here: Path) -> None:
    (here / "few").mkdir()
    for name in ("a.csv", "b.parquet"):
        (here / "few" / name).write_text("user,item,timestamp\n")


FILES = Group(
    "jobs/prepare_data.py: files of interactions",
    (
        Case("the file is not there", _CSV, remove("raw.csv")),
        Case("the file is empty", _CSV, write("raw.csv", "")),
        Case("a header and no rows", _CSV, write("raw.csv", "user,item,timestamp\n")),
        Case("no header", _CSV, write("raw.csv", _ROW * 9)),
        Case("a semicolon for a comma", _CSV, write("raw.csv", "user;item;timestamp\n" + _ROW.replace(",", ";") * 9)),
        Case("a space in the header", _CSV, replace("raw.csv", '"item"', '" item"')),
        Case("a column twice", _CSV, write("raw.csv", "user,item,timestamp,item\nu1,i1,1,i2\n")),
        Case("Latin-1 text", _CSV, write("raw.csv", "user,item,timestamp\nJosé,i1,1\n".encode("latin-1") * 5)),
        Case("UTF-16 text", _CSV, write("raw.csv", "user,item,timestamp\nu1,i1,1\n".encode("utf-16"))),
        Case("a compressed file", _CSV, write("raw.csv", gzip.compress(b"user,item,timestamp\n", mtime=0))),
        Case(
            "UTF-16 without a header", f"{_CSV} --columns user,item,timestamp", write("raw.csv", _ROW.encode("utf-16"))
        ),
        Case("UTF-16 in JSON", _JSONL, write("raw.jsonl", '{"user": "u1"}'.encode("utf-16"))),
        Case("a header without a line end", _CSV, write("raw.csv", "user,item,timestamp")),
        Case("zeros in place of text", _CSV, write("raw.csv", b"user,item,timestamp\n" + b"\0" * 90)),
        Case("the last row is cut off", _CSV, write("raw.csv", "user,item,timestamp\nu1,i1,1\nu2,i")),
        Case("a quote that never closes", _CSV, write("raw.csv", 'user,item,timestamp\n"u1,i1,1\nu2,i2,2\n')),
        Case(
            "a quote in the last column that never closes",
            _CSV,
            write("raw.csv", 'user,item,timestamp,comment\nu1,i1,1,ok\nu1,i2,2,"broken\nu1,i3,3,fine\n'),
        ),
        Case(
            "a file that is cut off inside a quoted text",
            _CSV,
            write("raw.csv", 'user,item,timestamp,comment\nu1,i1,1,"good"\nu1,i2,2,"as descri'),
        ),
        Case("a folder for a file", _CSV, folder("raw.csv")),
        Case("an unknown suffix", _CSV.replace("raw.csv", "raw.dat"), move("raw.csv", "raw.dat")),
        Case("text in a file called .parquet", _PARQUET, copy("raw.csv", "raw.parquet")),
        Case("a truncated Parquet file", _PARQUET, cut("raw.parquet", 0.5)),
        Case("a Parquet file with damaged pages", _PARQUET, damaged_page("raw.parquet")),
        Case("JSON with a missing bracket", _JSONL, replace("raw.jsonl", "}\n", "\n")),
        Case("JSON without the column", _JSONL, write("raw.jsonl", '{"user": "u1", "item": "i1"}\n')),
        Case("an empty JSON file", _JSONL, write("raw.jsonl", "")),
        Case(
            "one list of all rows for JSON lines",
            _JSONL,
            write("raw.jsonl", '[{"user": 1, "item": 2, "timestamp": 3}]'),
        ),
        Case("a plain file called .gz", _CSV.replace("raw.csv", "raw.csv.gz"), copy("raw.csv", "raw.csv.gz")),
        Case("a compressed file that is cut off", _CSV.replace("raw.csv", "raw.csv.gz"), write("raw.csv.gz", _CUT)),
        Case("a .zip archive", _CSV.replace("raw.csv", "raw.zip"), write("raw.zip", "PK")),
        Case(
            "a Parquet file compressed as a whole", _CSV.replace("raw.csv", "a.parquet.gz"), write("a.parquet.gz", _CUT)
        ),
        Case("a table with commas called .tsv", _CSV.replace("raw.csv", "raw.tsv"), copy("raw.csv", "raw.tsv")),
        Case("JSON that is not by lines", _CSV.replace("raw.csv", "raw.json"), write("raw.json", "[\n{}\n]\n")),
        Case("a folder with files of two kinds", _CSV.replace("raw.csv", "few"), _two_kinds),
        Case("a glob that fits no file", _CSV.replace("raw.csv", "'day-*.csv'")),
        Case(
            "an output in the folder that is read",
            "prepare_data --format table --input {here}/few --output {here}/few/out",
            _two_kinds,
        ),
        Case("a file named twice", f"{_CSV} --input {{here}}/raw.csv"),
        Case("spaces for tabs in a RecBole file", _RECBOLE, replace("Toy.inter", "\t", " ", -1)),
        Case("commas for tabs in the rows of a RecBole file", _RECBOLE, replace("Toy.inter", "u0\ti0\t", "u0,i0,")),
        Case("a URI of another service", "prepare_data --format table --input hdfs://host/raw.csv --output {here}/out"),
    ),
)

ROWS = Group(
    "jobs/prepare_data.py: rows, ids and timestamps",
    (
        Case("timestamps rounded to float32", _PARQUET, table("raw.parquet", **_NUMBERS, timestamp=_FLOAT32)),
        Case("timestamps that are true or false", _PARQUET, table("raw.parquet", **_NUMBERS, timestamp=[True] * 9)),
        Case("a timestamp in hexadecimal digits", _CSV, replace("raw.csv", "1300000060", "0x4d7c6dbc")),
        Case("a date that does not exist", _CSV, write("raw.csv", "user,item,timestamp\nu1,i1,2023-02-29\n")),
        Case("a date with the day before the month", _CSV, write("raw.csv", "user,item,timestamp\nu1,i1,29.02.2024\n")),
        Case("dates with slashes", _CSV, write("raw.csv", "user,item,timestamp\nu1,i1,2024/05/01\n")),
        Case("a fraction of a second in JSON", _JSONL, write("raw.jsonl", _FRACTION)),
        Case("a large timestamp among fractions in JSON", _JSONL, write("raw.jsonl", _LARGE)),
        Case("a timestamp that is a date", _CSV, replace("raw.csv", "1300000060", "2024-05-01")),
        Case("a timestamp that is NaN", _RECBOLE, replace("Toy.inter", "1300000060", "nan")),
        Case("an infinite timestamp", _RECBOLE, replace("Toy.inter", "1300000060", "inf")),
        Case("a timestamp with a fraction", _RECBOLE, replace("Toy.inter", "1300000060", "1300000060.5")),
        Case("a timestamp beyond int64", _CSV, replace("raw.csv", "1300000060", "99999999999999999999")),
        Case("a float NaN timestamp", _PARQUET, table("raw.parquet", **_NUMBERS, timestamp=[1.0] * 8 + [np.nan])),
        Case("timestamps of two types", _JSONL, replace("raw.jsonl", "1300000060", '"soon"')),
        Case("an id that is a fraction", _PARQUET, table("raw.parquet", user=[1.5], item=["a"], timestamp=[1])),
        Case("ids that are numbers and text", _JSONL, replace("raw.jsonl", '"u1"', "1")),
        Case("ids that are lists", _JSONL, replace("raw.jsonl", '"u0"', '["u0"]', -1)),
        Case("bytes for ids", _PARQUET, table("raw.parquet", user=[b"\xff"], item=["a"], timestamp=[1])),
        Case("a row with too many columns", _CSV, replace("raw.csv", "\n", "\nu3,i4,5,6\n")),
        Case("everything is null", _CSV, write("raw.csv", "user,item,timestamp\n" + ",,\n" * 9)),
        Case("no user is left after the 5-core", _CSV, write("raw.csv", "user,item,timestamp\nu1,i1,1\n")),
        Case("a RecBole file without types", _RECBOLE, replace("Toy.inter", "user_id:token", "user_id")),
        Case("a sequential file for a plain one", _RECBOLE, copy("unisrec/Toy.test.inter", "Toy.inter")),
        Case("a folder with two .inter files", _RECBOLE.replace("Toy.inter", "unisrec")),
    ),
)

READING = Group(
    "jobs/prepare_data.py: options of reading",
    (
        Case("a condition on a column that is not there", f"{_CSV} --keep 'rating >= 4'"),
        Case("a condition that compares words as numbers", f"{_CSV} --keep 'item > 4'"),
        Case("a number compared with a word", f"{_PARQUET} --keep 'timestamp > noon'"),
        Case("numbers compared with a date", f"{_PARQUET} --keep 'timestamp >= 2024-05-01'"),
        Case("words compared with a date", f"{_CSV} --keep 'item >= 2024-05-01 12:00'"),
        Case("dates compared with a number", _DATES, table("raw.parquet", **_NUMBERS, timestamp=_DAYS)),
        Case("a condition with a date that does not exist", f"{_CSV} --keep 'timestamp < 2024-02-30'"),
        Case("true or false compared in order", _FLAGS, table("raw.parquet", **_NUMBERS, new=[True] * 9)),
        Case("two conditions in one", f"{_CSV} --keep 'timestamp >= 4 and item = i1'"),
        Case("a condition with parentheses", f"{_CSV} --keep 'timestamp >= (4)'"),
        Case("a condition with two values", f"{_CSV} --keep 'item = i1, i2'"),
        Case("a condition with a quote that never closes", f'{_CSV} --keep "item in (\'i1, i2)"'),
        Case("a condition with an operator of another language", f"{_CSV} --keep 'timestamp <> 4'"),
        Case("a condition without a value", f"{_CSV} --keep 'item ='"),
        Case("a condition that is code", f"{_CSV} --keep '__import__(1)'"),
        Case("a condition that no row holds", f"{_CSV} --keep 'item = none'"),
        Case("conditions that no row holds together", f"{_CSV} --keep 'item = i1' --keep 'item = i2'"),
        Case("another delimiter than the file's", f"{_CSV} --delimiter ';'"),
        Case("a delimiter for JSON", f"{_JSONL} --delimiter ';'"),
        Case("a long delimiter with quotes", f"{_CSV} --delimiter '::' --quotes"),
        Case("fewer names than the file has columns", f"{_CSV} --columns user,item --timestamp-column none"),
        Case("names for a file that has a header", f"{_CSV} --columns user,item,timestamp", write("raw.csv", _TABLE)),
        Case("names of columns without the user", f"{_CSV} --columns _,item,timestamp", write("raw.csv", _ROW * 9)),
        Case("seconds and milliseconds in one column", _CSV, write("raw.csv", _TWO_UNITS)),
        Case("a unit that the numbers contradict", f"{_CSV} --time-unit ms"),
        Case("a unit for dates", f"{_CSV} --time-unit s", write("raw.csv", "user,item,timestamp\nu,i,2024-05-01\n")),
        Case("a format that the dates do not have", f"{_CSV} --time-format %m/%d/%Y"),
        Case("a format for numbers", f"{_PARQUET} --time-format %m/%d/%Y"),
        Case("a format that is not supported", f"{_CSV} --time-format %Y-%f"),
        Case("a unit and a format", f"{_CSV} --time-format %Y --time-unit s"),
        Case("a unit without timestamps", f"{_CSV} --time-unit s --timestamp-column none"),
        Case("a split by time without timestamps", f"{_CSV} --split global-time --timestamp-column none"),
        Case("an option of another format", f"{_RECBOLE} --delimiter ';'"),
        Case("items that are not there", f"{_ITEMS} --title-column title"),
        Case("items without the title", f"{_ITEMS} --title-column name", write("items.jsonl", _DESCRIBED)),
        Case("items without a column to read", _ITEMS, write("items.jsonl", _DESCRIBED)),
        Case("items of another catalogue", f"{_ITEMS} --title-column title", write("items.jsonl", _OTHERS)),
        Case(
            "a column that a dataset has already",
            f"{_ITEMS} --item-columns popularity",
            write("items.jsonl", _DESCRIBED),
        ),
        Case(
            "a quote in a title that never closes",
            f"{_ITEMS_CSV} --title-column title",
            write("items.csv", 'item,title\ni1,Red\ni2,"5 inch\ni3,Blue\n'),
        ),
        Case("items with semicolons", f"{_ITEMS_CSV} --title-column title", write("items.csv", "item;title\ni1;Red\n")),
        Case(
            "names for items that have a header",
            f"{_ITEMS_CSV} --title-column title --item-names item,title",
            write("items.csv", "item,title\ni1,Red\n"),
        ),
        Case("a separator without items", f"{_CSV} --item-delimiter ';'"),
        Case("a title without items", f"{_CSV} --title-column title"),
        Case("several folders of UniSRec", f"{_UNISREC} --input {{here}}/unisrec"),
    ),
)

UNISREC = Group(
    "jobs/prepare_data.py: sequential files of UniSRec",
    (
        Case("no such folder", _UNISREC, remove("unisrec")),
        Case("no valid file", _UNISREC, remove("unisrec/Toy.valid.inter")),
        Case("two data sets in one folder", _UNISREC, copy("unisrec/Toy.test.inter", "unisrec/Toys.test.inter")),
        Case("a plain file for a sequential one", _UNISREC, copy("Toy.inter", "unisrec/Toy.test.inter")),
        Case("the test file is cut off", _UNISREC, cut("unisrec/Toy.test.inter", 0.5)),
        Case("a user with two rows", _UNISREC, replace("unisrec/Toy.test.inter", "\n1\t", "\n0\t")),
        Case("a row without a history", _UNISREC, replace("unisrec/Toy.test.inter", "\n0\t0 ", "\n0\t\t0 ")),
        Case("a history that contradicts the valid file", _UNISREC, replace("unisrec/Toy.test.inter", "\t0 ", "\t1 ")),
        Case("an index with a gap", _UNISREC, write("unisrec/Toy.item2index", "a\t0\nb\t2\n")),
        Case("an index with an empty id", _UNISREC, write("unisrec/Toy.item2index", "a\t0\n\t1\n")),
        Case("an index with words", _UNISREC, write("unisrec/Toy.item2index", "a\tzero\n")),
        Case("an item beyond the index", _UNISREC, write("unisrec/Toy.item2index", "a\t0\nb\t1\n")),
        Case("spaces for tabs", _UNISREC, replace("unisrec/Toy.test.inter", "\t", " ", -1)),
        Case("raw features of another width", _UNISREC, write("unisrec/Toy.feat1CLS", b"\0" * 4096)),
        Case("features of which nothing says what they are", _UNISREC, copy("text.npy", "unisrec/features.npy")),
        Case("features as PyTorch's file", _UNISREC, write("unisrec/Toy.text.pt", b"PK")),
        Case("texts under another header", _UNISREC, write("unisrec/Toy.text", "item\ttext\n1\tred\n")),
    ),
)

COLD = Group(
    "jobs/prepare_data.py: items held out of training",
    (
        Case("a share of 0", f"{_CSV} --cold-item-share 0"),
        Case("a share of 1", f"{_CSV} --cold-item-share 1"),
        Case("a share below 0", f"{_CSV} --cold-item-share -0.1"),
        Case("a share that is no number", f"{_CSV} --cold-item-share nan"),
        Case("a share in per cent", f"{_UNISREC} --cold-item-share 10"),
        Case("a share that is less than an item", f"{_CSV} --cold-item-share 0.001"),
        Case("a share that is every item", f"{_UNISREC} --cold-item-share 0.99"),
        Case("a seed below 0", f"{_CSV} --cold-item-share 0.1 --seed -1"),
        Case("a seed without a share", f"{_CSV} --seed 1"),
        Case(
            "every training interaction is of a cold item",
            f"{_CSV} --cold-item-share 0.34 --seed 4 --min-user-interactions 1 --min-item-interactions 1",
            write("raw.csv", "user,item,timestamp\nu1,i1,1\nu1,i2,2\nu1,i3,3\n"),
        ),
        Case("a column called cold", f"{_ITEMS} --item-columns cold", write("items.jsonl", _DESCRIBED)),
    ),
)

GROUPS = (FILES, ROWS, READING, UNISREC, COLD)

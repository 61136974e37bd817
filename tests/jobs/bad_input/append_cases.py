"""Cases of bad input for jobs/prepare_data.py --append: the old dataset, the new rows and features, and the output."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.prepare_data import prepare
from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import flip, remove, table, write

_ROWS = "--format table --input {here}/raw.csv"
_APPEND = f"prepare_data {_ROWS} --output {{here}}/out --append {{here}}/dataset"
_HEADER = "user,item,timestamp\n"
_UNISREC = "prepare_data --format unisrec --input {here}/unisrec --output {here}/out --append {here}/dataset"


def _hold_out(here: Path) -> None:
    prepare("unisrec", str(here / "cold"), str(here / "unisrec"), cold_item_share=0.2)


def _american(here: Path) -> None:
    """An old dataset with a format of dates, and new rows with seconds."""
    rows = "".join(f"u{row % 3},i{row % 2},03/{row:02}/2011\n" for row in range(1, 13))
    write("may.csv", _HEADER + rows)(here)
    low = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare("table", str(here / "may"), str(here / "may.csv"), time_format="%m/%d/%Y", **low)


def _declared(here: Path) -> None:
    """An old dataset whose unit was declared, and new rows with dates."""
    prepare("table", str(here / "may"), str(here / "raw.csv"), time_unit="s")
    write("raw.csv", f"{_HEADER}u1,i1,2011-03-13\n")(here)


def _good_ratings(here: Path) -> None:
    """An old dataset of good ratings, and new rows without any."""
    rows = "".join(f"u{row % 3},i{row % 2},{1_300_000_000 + row},5\n" for row in range(12))
    write("may.csv", f"user,item,timestamp,rating\n{rows}")(here)
    low = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare("table", str(here / "may"), str(here / "may.csv"), keep="rating >= 4", **low)


_MAY = _APPEND.replace("/dataset", "/may")
APPENDING = Group(
    "jobs/prepare_data.py: growing a dataset",
    (
        Case("the old dataset is not there", _APPEND.replace("/dataset", "/nowhere")),
        Case("the old dataset is not finished", _APPEND, remove("dataset/manifest.json")),
        Case("the old dataset has one bit changed", _APPEND, flip("dataset/sequences.arrow", 0.6)),
        Case("the output is the old dataset", _APPEND.replace("/out", "/dataset") + " --overwrite"),
        Case("the output is inside the old dataset", _APPEND.replace("/out", "/dataset/more")),
        Case("the output is around the old dataset", _APPEND.replace("/out ", " ")),
        Case("a format that is not appended", _UNISREC),
        Case("nothing is appended", _APPEND.replace("--input {here}/raw.csv ", "")),
        Case("an unknown option of the format", _APPEND.replace("table", "lists") + " --delimiter ;"),
        Case("new rows without timestamps", f"{_APPEND} --timestamp-column none"),
        Case("new rows in another unit", _APPEND, write("raw.csv", f"{_HEADER}u1,i1,1300000000000\n")),
        Case("new rows in no known unit", _APPEND, write("raw.csv", f"{_HEADER}u1,i1,20000\n")),
        Case("new dates with parts of seconds", _APPEND, write("raw.csv", f"{_HEADER}u1,i1,2011-03-13T10:00:00.5\n")),
        Case("a format of dates that the old dataset had", _MAY, _american),
        Case("a unit that the old dataset had", _MAY, _declared),
        Case("a condition that the old dataset had", _MAY, _good_ratings),
        Case("moments for a split without any", f"{_APPEND} --valid-from 3 --test-from 4"),
        Case("held back rows that are text", _APPEND, write("dataset/held_back.parquet", "mine")),
        Case(
            "held back rows of another kind",
            _APPEND,
            table("dataset/held_back.parquet", user=["u1"], timestamp=[1_300_000_000]),
        ),
        Case(
            "new features of another width",
            f"{_APPEND} --features text={{here}}/text.parquet",
            table("text.parquet", item=["i1", "new"], vector=[np.ones(5, np.float32)] * 2),
        ),
        Case(
            "new features of another type",
            f"{_APPEND} --features text={{here}}/text.parquet",
            table("text.parquet", item=["i1", "new"], vector=[np.ones(6, np.float16)] * 2),
        ),
        Case("items held out of a dataset that grows", f"{_APPEND} --cold-item-share 0.1"),
        Case("the old dataset has cold items", _APPEND.replace("/dataset", "/cold"), _hold_out),
        Case("new features without ids", f"{_APPEND} --features text={{here}}/text.npy"),
    ),
)
GROUPS = (APPENDING,)

"""Timestamps of new rows have to be in the unit of OLD's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.dataset import Dataset
from jobs.prepare_data import prepare

LOW = {"min_user_interactions": 1, "min_item_interactions": 1, "split": "leave-one-out"}
SECONDS = [1_300_000_000, 1_300_000_060, 1_300_000_120]
DAYS = ["2011-03-13", "2011-03-14", "2011-03-15"]


def text_file(file: Path, times: list[object]) -> str:
    lines = ["user,item,timestamp", *(f"u,{file.stem}{row},{time}" for row, time in enumerate(times))]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def grown(here: Path, before: list[object], after: list[object], **options: str) -> Dataset:
    prepare("table", str(here / "old"), text_file(here / "a.csv", before), **LOW)
    return prepare(
        "table", str(here / "grown"), text_file(here / "b.csv", after), append=str(here / "old"), **LOW, **options
    )


def test_numbers_of_the_same_unit_and_dates_go_together(tmp_path: Path) -> None:
    found = grown(tmp_path, [*SECONDS], ["2011-03-13T07:06:50Z"])
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [*SECONDS[:1], 1_300_000_010, *SECONDS[1:]]
    assert found.manifest["source"]["timestamp_unit"] == "s"


def test_coarser_dates_are_converted_exactly(tmp_path: Path) -> None:
    found = grown(tmp_path, ["2011-03-13T07:06:50.25", *DAYS[1:]], ["2011-03-20"])
    assert found.timestamps is not None
    assert found.timestamps.tolist()[-1] == 1_300_579_200_000
    assert found.manifest["source"]["timestamp_unit"] == "ms"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            SECONDS,
            [time * 1000 for time in SECONDS],
            "b.csv.*'1300000000000' in row 1 .*, a time in milliseconds, and those of",
        ),
        (
            DAYS,
            ["2011-03-20", "2011-03-20T00:00:00.5"],
            "b.csv.* in row 2 .*a time in milliseconds, and those of .* are in seconds",
        ),
        (SECONDS, [7, 8], "b.csv.*no time between 1973 and 2100 .*say --time-unit s"),
        ([1, 2, 3], DAYS, "b.csv.*a date, and the timestamps of .* are numbers whose unit is not known"),
        ([1, 2, SECONDS[0]], [SECONDS[0] * 1000], "old: a timestamp is 1300000000, a time in seconds, but .*b.csv"),
    ],
)
def test_other_units_are_refused(tmp_path: Path, before: list[object], after: list[object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        grown(tmp_path, before, after)
    assert not (tmp_path / "grown").exists()


def test_a_declared_unit_vouches_for_numbers_that_tell_none(tmp_path: Path) -> None:
    found = grown(tmp_path, [*SECONDS], [7], time_unit="s")
    assert found.timestamps is not None
    assert found.timestamps.tolist()[0] == 7
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match=r"b.csv.*'7' in row 1 .*, a time in milliseconds, and those of"):
        grown(other, [*SECONDS], [7], time_unit="ms")


def columns_of(dataset: Dataset) -> Iterator[str]:
    yield from pq.read_schema(dataset.folder / "items.parquet").names


def test_numbers_of_an_unknown_unit_go_together(tmp_path: Path) -> None:
    found = grown(tmp_path, [1, 2, 3], [2])
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [1, 2, 2, 3]
    assert "timestamp_unit" not in found.manifest["source"]
    assert "text" not in columns_of(found)
    assert pa.types.is_large_string(found.user_source_ids().type)

"""Options of reading that come from OLD can be taken back, and an error about one says where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.dataset import Dataset
from jobs.prepare_data import prepare

pytestmark = pytest.mark.long
LOW = {"min_user_interactions": 1, "min_item_interactions": 1}
DAY = 86_400
FIRST = 1_299_974_400  # 2011-03-13
AMERICAN = {"time_format": "%m/%d/%Y"}
DATES = ["03/13/2011", "03/14/2011", "03/15/2011"]
NUMBERS = [FIRST, FIRST + DAY, FIRST + 2 * DAY]


def rows_file(file: Path, times: list[Any], ratings: list[int] | None = None) -> str:
    columns = {
        "user": ["u"] * len(times),
        "item": [f"{file.stem}{row}" for row in range(len(times))],
        "timestamp": times,
    }
    table = pa.table(columns | ({"rating": ratings} if ratings else {}))
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        lines = [",".join(table.column_names), *(",".join(map(str, row.values())) for row in table.to_pylist())]
        file.write_text("\n".join(lines) + "\n")
    return str(file)


def old_dataset(here: Path, times: list[Any], ratings: list[int] | None = None, **options: Any) -> None:
    prepare("table", str(here / "old"), rows_file(here / "a.csv", times, ratings), **LOW, **options)


def grown(here: Path, new: str, **options: Any) -> Dataset:
    return prepare("table", str(here / "grown"), new, append=str(here / "old"), **options)


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (["2011-03-20"], {"time_format": "none"}),
        (["2011-03-20"], {"time_format": ""}),
        ([FIRST + 7 * DAY], {"time_unit": "s"}),
        ([FIRST + 7 * DAY], {"time_unit": "auto"}),
        (["2011/03/20"], {"time_format": "%Y/%m/%d"}),
    ],
)
def test_a_format_of_dates_is_taken_back(
    tmp_path: Path, times: list[Any], options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    old_dataset(tmp_path, DATES, **AMERICAN)
    found = grown(tmp_path, rows_file(tmp_path / "b.csv", times), **options)
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [*NUMBERS, FIRST + 7 * DAY]
    given = options.get("time_format", "none")
    assert f"--time-format {given or chr(39) * 2}, in {tmp_path}/old --time-format %m/%d/%Y" in capsys.readouterr().out
    assert found.manifest["source"].get("time_format") == (given if "%" in given else None)


@pytest.mark.parametrize("in_folder", [True, False])
def test_a_format_of_dates_is_not_for_parquet_if_old_was_text(tmp_path: Path, in_folder: bool) -> None:
    old_dataset(tmp_path, DATES, **AMERICAN)
    file = rows_file(tmp_path / "june/b.parquet", [FIRST + 7 * DAY])
    found = grown(tmp_path, str(tmp_path / "june") if in_folder else file)
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [*NUMBERS, FIRST + 7 * DAY]


def test_a_format_takes_the_place_of_a_unit(tmp_path: Path) -> None:
    old_dataset(tmp_path, NUMBERS, time_unit="s")
    found = grown(tmp_path, rows_file(tmp_path / "b.csv", ["03/20/2011"]), **AMERICAN)
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [*NUMBERS, FIRST + 7 * DAY]
    assert found.manifest["source"]["time_format"] == "%m/%d/%Y"


@pytest.mark.parametrize(
    ("before", "options", "after", "said", "way_out"),
    [
        (
            DATES,
            AMERICAN,
            [FIRST],
            r"not a date written as '%m/%d/%Y'.* \(--time-format %m/%d/%Y was not given and is as in .*old; "
            r"--time-format none leaves it out\)$",
            {"time_format": "none"},
        ),
        (
            NUMBERS,
            {"time_unit": "s"},
            ["2011-03-20"],
            r"a date, and --time-unit is the unit of numbers; .* \(--time-unit s was not given and is as in .*old; "
            r"--time-unit auto leaves it out\)$",
            {"time_unit": "auto"},
        ),
    ],
)
def test_an_error_about_times_says_that_the_option_is_olds(
    tmp_path: Path, before: list[Any], options: dict[str, str], after: list[Any], said: str, way_out: dict[str, str]
) -> None:
    old_dataset(tmp_path, before, **options)
    new = rows_file(tmp_path / "b.csv", after)
    with pytest.raises(InputError, match=said):
        grown(tmp_path, new)
    assert not (tmp_path / "grown").exists()
    assert grown(tmp_path, new, **way_out).num_interactions == 4


@pytest.mark.parametrize("nothing", ["none", ""])
def test_a_condition_of_old_is_named_and_taken_back(tmp_path: Path, nothing: str) -> None:
    old_dataset(tmp_path, NUMBERS, [5, 1, 5], keep="rating >= 4")
    new = rows_file(tmp_path / "b.csv", [FIRST + 7 * DAY])
    note = r" \(--keep 'rating >= 4' was not given and is as in .*old; --keep none leaves it out\)$"
    with pytest.raises(InputError, match="column 'rating'.*" + note):
        grown(tmp_path, new)
    found = grown(tmp_path, new, keep=nothing)
    assert found.num_interactions == 3
    assert "keep" not in found.manifest["source"]


def test_an_error_about_an_option_that_was_given_names_no_other(tmp_path: Path) -> None:
    old_dataset(tmp_path, DATES, **AMERICAN)
    with pytest.raises(InputError, match=r"correct it$"):
        grown(tmp_path, rows_file(tmp_path / "b.csv", ["2011"]), time_format="%d.%m.%Y")


def test_nothing_is_also_a_value_without_append(tmp_path: Path) -> None:
    new = rows_file(tmp_path / "b.csv", [FIRST], [1])
    found = prepare("table", str(tmp_path / "d"), new, keep="none", time_format="none", **LOW)
    assert found.num_interactions == 1
    assert {"keep", "time_format"} & set(found.manifest["source"]) == set()

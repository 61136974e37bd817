"""The unit of timestamps: told by the size of numbers, declared, or read by a format; contradictions are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InputError
from data.formats.time_kinds import PER_SECOND, TimeKind, common_kind, told_units
from jobs.prepare_data import main, prepare
from jobs.prepared_summary import summary
from tests.data.engine.in_memory import collected_rows
from tests.data.read_rows import rows_with_nulls, source_of

EVERYTHING = {"min_user_interactions": 1, "min_item_interactions": 1}


def write(folder: Path, *times: object) -> str:
    lines = [f"u{n},i{n},{time}" for n, time in enumerate(times)]
    (folder / "x.csv").write_text("\n".join(["user,item,timestamp", *lines]) + "\n")
    return str(folder / "x.csv")


@given(st.integers(100_000_000, 4_102_444_800), st.sampled_from(list(PER_SECOND)))
def test_a_time_between_1973_and_2100_tells_one_unit(seconds: int, unit: str) -> None:
    assert told_units(np.array([seconds * PER_SECOND[unit]])) == ({unit: 0}, False)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
def test_units_are_told_as_by_a_slow_reader(times: list[int]) -> None:
    expected: dict[str, int] = {}
    silent = False
    for place, time in enumerate(times):
        units = [unit for unit, factor in PER_SECOND.items() if 10**8 * factor <= time <= 4_102_444_800 * factor]
        assert len(units) <= 1
        silent = silent or not units
        for unit in units:
            expected.setdefault(unit, place)
    assert told_units(np.array(times)) == (expected, silent)


@pytest.mark.parametrize(("unit", "factor"), PER_SECOND.items())
def test_numbers_keep_their_value_and_their_unit_is_named(unit: str, factor: int, tmp_path: Path) -> None:
    times = [1_300_000_000 * factor, 1_500_000_001 * factor]
    file = write(tmp_path, *times)
    dataset = prepare("table", str(tmp_path / "d"), file, **EVERYTHING)
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == times
    assert dataset.manifest["source"]["timestamp_unit"] == unit
    declared = prepare("table", str(tmp_path / "e"), file, time_unit=unit, **EVERYTHING)
    assert declared.manifest["source"]["timestamp_unit"] == unit
    assert declared.fingerprint == dataset.fingerprint
    result = CliRunner().invoke(
        main, ["--format", "table", "--input", file, "--output", str(tmp_path / "f"), "--min-user-interactions", "1",
               "--min-item-interactions", "1"],
    )  # fmt: skip
    assert ": 2011-03-13 to 2017-07-14" in result.output


def test_numbers_that_are_no_times_of_our_days_have_no_unit_unless_it_is_declared(tmp_path: Path) -> None:
    file = write(tmp_path, 5, 1_300_000_000)
    assert collected_rows(source_of("table", file)).timestamp_unit is None
    assert collected_rows(source_of("table", file, time_unit="auto")).timestamp_unit is None
    assert collected_rows(source_of("table", file, time_unit="s")).timestamp_unit == "s"


def test_times_beyond_the_calendar_can_be_declared(tmp_path: Path) -> None:
    dataset = prepare("table", str(tmp_path / "d"), write(tmp_path, -(2**62), 2**62), time_unit="s", **EVERYTHING)
    *_, span = summary(dataset)
    assert re.fullmatch(r"timestamps are in seconds: -146138510344-.* to 146138514283-.*", span)


@pytest.mark.parametrize("sizes", [(1 << 30, 1 << 20), (20, 5)])
def test_two_units_are_refused_with_their_rows(sizes: tuple[int, int], tmp_path: Path) -> None:
    file = write(tmp_path, 5, 1_300_000_000, 1_300_000_000_000, 1_400_000_000)
    for path, quotes in ((file, True), (file, False)):
        with pytest.raises(
            InputError,
            match=r"x\.csv: column timestamp is '1300000000' in row .*, a time in seconds, but column timestamp is "
            r"'1300000000000' in row .*, a time in milliseconds; write all timestamps in one unit",
        ):
            rows_with_nulls(source_of("table", path, quotes=quotes), *sizes)


def test_a_declared_unit_that_contradicts_the_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"is '1300000000000' in row 1 of 1 .*, a time in milliseconds, but --time-unit says seconds; say "
        r"--time-unit ms, or leave it out",
    ):
        rows_with_nulls(source_of("table", write(tmp_path, 1_300_000_000_000), time_unit="s"))
    with pytest.raises(InputError, match=r"is '2020-01-01' in row 1 of 1 .*, a date, and --time-unit is the unit of"):
        rows_with_nulls(source_of("table", write(tmp_path, "2020-01-01"), time_unit="s"))


def test_dates_are_read_by_a_format(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("user\titem\ttimestamp\na\ti\t11/15/2019 8:55:22 AM\nb\ti\t1/02/2019 8:55:22 PM\n")
    source = source_of("table", str(tmp_path / "x.tsv"), time_format="%m/%d/%Y %I:%M:%S %p")
    assert rows_with_nulls(source).column("timestamp").to_pylist() == [1573808122, 1546462522]
    assert collected_rows(source).timestamp_unit == "s"
    zoned = source_of("table", write(tmp_path, "Fri Nov 15 10:00:00 +0200 2019"), time_format="%a %b %d %H:%M:%S %z %Y")
    assert rows_with_nulls(zoned).column("timestamp").to_pylist() == [1573804800]
    for value, pattern in (
        ("15/11/2019", "%m/%d/%Y"),
        ("2/30/2019", "%m/%d/%Y"),
        ("soon", "%m/%d/%Y"),
        ("1/1/2019 x", "%m/%d/%Y"),
    ):
        with pytest.raises(InputError, match=rf"is '{value}' in row 2 of 2 .*, which is not a date written as '%m"):
            rows_with_nulls(source_of("table", write(tmp_path, "1/3/2020", value), time_format=pattern))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_format": "%Y.%f"}, "--time-format '%Y.%f': %f is not supported; use %Y"),
        ({"time_format": "dd.mm.yyyy"}, "has no % directive"),
        ({"time_format": "%Y", "time_unit": "s"}, "give one of the two"),
        ({"time_unit": "s", "timestamp_column": "none"}, "there are no timestamps; leave them out"),
    ],
)
def test_rules_that_cannot_be_are_refused(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        source_of("table", write(tmp_path, 5), **options)


def test_a_format_is_for_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "timestamp": [5]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="column timestamp is int64, and --time-format reads text; leave it out"):
        rows_with_nulls(source_of("table", str(tmp_path / "x.parquet"), time_format="%Y"))


def test_blocks_have_a_common_kind_of_time() -> None:
    seconds = TimeKind(first="a", told=(("s", "a: column t is 1 in row 1"),))
    assert common_kind([seconds, TimeKind(), seconds]).named_unit == "s"
    assert common_kind([seconds, TimeKind(first="b", is_silent=True)]).named_unit is None
    assert common_kind([TimeKind(unit="s", first="a"), TimeKind(unit="us", first="b")]).named_unit == "us"
    assert common_kind([TimeKind(unit="ms", first="a"), TimeKind(unit="s", first="b")]).named_unit == "ms"
    with pytest.raises(InputError, match="a time in seconds, but b: column t is 2 in row 1, a time in nanoseconds"):
        common_kind([seconds, TimeKind(first="b", told=(("ns", "b: column t is 2 in row 1"),))])

"""Timestamps of tables: exact or refused, by one rule for Parquet, CSV, JSON lines and `.inter` files."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from jobs.prepare_data import prepare
from tests.data.engine.in_memory import collected_rows
from tests.data.read_rows import read_recbole, read_table, rows_with_nulls, source_of

TEXT_FORMATS = ["csv", "inter", "jsonl", "parquet"]


def read(file: Path) -> pa.Table:
    return read_recbole(str(file)) if file.suffix == ".inter" else read_table(str(file))


def of_text(folder: Path, suffix: str, times: list[str | None]) -> Path:
    """A file with these timestamps as text; in JSON and Parquet they are strings."""
    file = folder / f"rows.{suffix}"
    rows = [(f"u{row}", f"i{row}", time) for row, time in enumerate(times)]
    if suffix == "parquet":
        pq.write_table(pa.table({"user": [r[0] for r in rows], "item": [r[1] for r in rows], "timestamp": times}), file)
    elif suffix == "jsonl":
        names = ("user", "item", "timestamp")
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        names, separator = {
            "csv": (["user", "item", "timestamp"], ","),
            "inter": (["user_id:token", "item_id:token", "timestamp:float"], "\t"),
        }[suffix]
        lines = [names, *([user, item, time or ""] for user, item, time in rows)]
        file.write_text("".join(separator.join(line) + "\n" for line in lines))
    return file


def of_json(folder: Path, *numbers: str) -> Path:
    """JSON lines with the timestamps as they are spelt here."""
    file = folder / "rows.jsonl"
    file.write_text("".join(f'{{"user": "u", "item": "i{n}", "timestamp": {x}}}\n' for n, x in enumerate(numbers)))
    return file


def of_column(folder: Path, column: pa.Array) -> Path:
    """Parquet with this column of timestamps."""
    file = folder / "rows.parquet"
    items = [f"i{row}" for row in range(len(column))]
    pq.write_table(pa.table({"user": ["u"] * len(column), "item": items, "timestamp": column}), file)
    return file


def times_of(file: Path) -> list[int | None]:
    table = read(file)
    assert table.schema.field("timestamp").type == pa.int64()
    return table.column("timestamp").to_pylist()


CLOSE = [880394690, 880394632, 880394631, 880394630]


def test_float32_timestamps_that_may_have_been_rounded_are_refused(tmp_path: Path) -> None:
    file = of_column(tmp_path, pa.array(np.array(CLOSE, np.float32)))
    with pytest.raises(
        InputError,
        match=r"rows\.parquet: column timestamp is 880394688\.0 in row 1 .* as float32, exact only below 2\^24; ",
    ):
        read(file)


@pytest.mark.parametrize(("kind", "bits"), [(np.float16, 11), (np.float32, 24), (np.float64, 53)])
def test_floats_are_exact_below_the_limit_of_their_type(kind: Any, bits: int, tmp_path: Path) -> None:
    sound = [2**bits - 1, -(2**bits) + 1, 0]
    assert times_of(of_column(tmp_path, pa.array(np.array(sound, kind)))) == sound
    for value in (2**bits, -(2**bits)):
        with pytest.raises(InputError, match=rf"exact only below 2\^{bits}"):
            read(of_column(tmp_path, pa.array(np.array([value], kind))))
    with pytest.raises(InputError, match=r"is 1\.5 in row 2 of 2 .*expected a whole number"):
        read(of_column(tmp_path, pa.array(np.array([1, 1.5], kind))))


def test_float64_text_and_json_share_the_limit_of_float64(tmp_path: Path) -> None:
    for suffix in TEXT_FORMATS:
        assert times_of(of_text(tmp_path, suffix, ["1.3e9", "880394690.0", "-7"])) == [1_300_000_000, 880394690, -7]
        with pytest.raises(
            InputError, match=r"is '9007199254740993' in row 2 .*exact only below 2\^53; write .*whole digits"
        ):
            read(of_text(tmp_path, suffix, ["5.0", "9007199254740993"]))
        assert times_of(of_text(tmp_path, suffix, ["9007199254740993", "5"])) == [9007199254740993, 5]
    assert times_of(of_json(tmp_path, "1.3e9", "880394690.0", "-7")) == [1_300_000_000, 880394690, -7]
    with pytest.raises(
        InputError, match=r"is 9007199254740992\.0 in row 1 .*exact only below 2\^53; write .*whole digits"
    ):
        read(of_json(tmp_path, "9007199254740993", "1.0"))
    assert times_of(of_json(tmp_path, "9007199254740993", "1", "null")) == [9007199254740993, 1, None]


def test_a_fraction_that_float64_rounds_away_is_still_seen(tmp_path: Path) -> None:
    assert float("1600000000000000.1") == 1600000000000000
    for suffix in TEXT_FORMATS:
        with pytest.raises(InputError, match=r"is '1600000000000000\.1' in row 2 of 2 .*expected a whole number"):
            read(of_text(tmp_path, suffix, ["5.0", "1600000000000000.1"]))
    with pytest.raises(InputError, match=r"1600000000000000\.1.* in row 2 of 2 .*expected a whole number"):
        read(of_json(tmp_path, "5.0", "1600000000000000.1"))


@pytest.mark.parametrize("value", ["9223372036854775808", "-9223372036854775809"])
def test_numbers_beyond_64_bits_are_named_as_they_are_written(value: str, tmp_path: Path) -> None:
    message = rf"column timestamp(:float)? is (Decimal\()?'?{value}'?\)? in row 2.*64 bits"
    for suffix in TEXT_FORMATS:
        with pytest.raises(InputError, match=message):
            read(of_text(tmp_path, suffix, ["5", value]))
    with pytest.raises(InputError, match=message):
        read(of_json(tmp_path, "5", value))
    with pytest.raises(InputError, match=message):
        read(of_column(tmp_path, pa.array([Decimal(5), Decimal(value)], pa.decimal128(20, 0))))


@pytest.mark.parametrize("value", ["0x100", "0X1f", "1_000", "soon", "nan", "inf", "5 ", " 5", "1.5", "True", "12:30"])
def test_text_that_is_no_whole_number_and_no_date_is_refused(value: str, tmp_path: Path) -> None:
    for suffix in TEXT_FORMATS:
        with pytest.raises(InputError, match=r"column timestamp(:float)? is '.*' in row 2 of 2 .*expected"):
            read(of_text(tmp_path, suffix, ["5", value]))
        with pytest.raises(InputError, match=r"column timestamp(:float)? is '.*' in row 1 of 1 .*expected"):
            read(of_text(tmp_path, suffix, [value]))


def test_a_truth_value_is_not_a_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column timestamp is bool, expected whole numbers or dates"):
        read(of_column(tmp_path, pa.array([True, False])))
    with pytest.raises(InputError, match=r"column timestamp is True in row 1"):
        read(of_json(tmp_path, "true", "false"))
    with pytest.raises(InputError, match=r"column timestamp is False in row 2"):
        read(of_json(tmp_path, "5", "false"))


def test_whole_numbers_of_any_column_type(tmp_path: Path) -> None:
    for kind in (pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.decimal128(25, 2), pa.decimal256(50, 0)):
        assert times_of(of_column(tmp_path, pa.array([5, None, 7], pa.int64()).cast(kind))) == [5, None, 7]
    encoded = pa.array(["880394690", "5", "880394690", None])
    assert times_of(of_column(tmp_path, encoded.dictionary_encode())) == [880394690, 5, 880394690, None]
    assert times_of(of_column(tmp_path, encoded.cast(pa.large_string()))) == [880394690, 5, 880394690, None]
    with pytest.raises(InputError, match=r"is 18446744073709551615 in row 1 of 1 .*64 bits"):
        read(of_column(tmp_path, pa.array([2**64 - 1], pa.uint64())))
    with pytest.raises(InputError, match=r"is 1\.5 in row 1 of 1"):
        read(of_column(tmp_path, pa.array([Decimal("1.5")], pa.decimal128(12, 2))))
    for kind in (pa.time64("us"), pa.duration("s"), pa.binary()):
        value = b"5" if kind == pa.binary() else 5
        with pytest.raises(InputError, match=r"column timestamp is .*, expected whole numbers or dates"):
            read(of_column(tmp_path, pa.array([value], kind)))


def seconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())


DATES = {
    "2020-01-31": seconds(2020, 1, 31),
    "2020-01-31T10:11": seconds(2020, 1, 31, 10, 11),
    "2020-01-31 10:11:12": seconds(2020, 1, 31, 10, 11, 12),
    "2020-01-31T10:11:12Z": seconds(2020, 1, 31, 10, 11, 12),
    "2020-01-31T10:11:12+02:00": seconds(2020, 1, 31, 8, 11, 12),
    "2020-01-31 10:11:12-0330": seconds(2020, 1, 31, 13, 41, 12),
    "2020-01-31T10:11+02": seconds(2020, 1, 31, 8, 11),
    "1965-01-01": seconds(1965, 1, 1),
}


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
def test_dates_are_read_alike_in_every_format(suffix: str, tmp_path: Path) -> None:
    file = of_text(tmp_path, suffix, [*DATES, None])
    assert times_of(file) == [*DATES.values(), None]
    assert read(file).schema.field("timestamp").metadata == {b"unit": b"s"}


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
@pytest.mark.parametrize(
    ("fraction", "unit", "per_second"),
    [
        ("5", "ms", 10**3),
        ("000", "ms", 10**3),
        ("1234", "us", 10**6),
        ("1234567", "ns", 10**9),
        ("123456789", "ns", 10**9),
    ],
)
def test_fractions_of_a_second_are_kept_in_a_unit_that_holds_them(
    suffix: str, fraction: str, unit: str, per_second: int, tmp_path: Path
) -> None:
    file = of_text(tmp_path, suffix, ["2020-01-31", f"2020-01-31T10:11:12.{fraction}Z"])
    whole = [seconds(2020, 1, 31), seconds(2020, 1, 31, 10, 11, 12)]
    part = int(fraction) * per_second // 10 ** len(fraction)
    assert times_of(file) == [whole[0] * per_second, whole[1] * per_second + part]
    assert read(file).schema.field("timestamp").metadata == {b"unit": unit.encode()}


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
def test_dates_that_cannot_be_read_exactly_are_refused(suffix: str, tmp_path: Path) -> None:
    for value in (
        "2020-02-30",
        "2020-1-3",
        "2020-01-31T23:59:60",
        "2020-13-01",
        "2020-01-31T25:00:00",
        "31.01.2020",
        "2020-01-31 UTC",
    ):
        with pytest.raises(InputError, match=r"column timestamp(:float)? is '.*' in row 2 of 2"):
            read(of_text(tmp_path, suffix, ["2020-01-01", value]))
    with pytest.raises(InputError, match=r"is '9999-12-31' in row 1 of 2 .*more than 64 bits of nanoseconds"):
        read(of_text(tmp_path, suffix, ["9999-12-31", "2020-01-31T10:11:12.123456789"]))
    for mixed in (["2020-01-01", "1577836800"], ["1577836800", "2020-01-01"], ["1.5e9", "2020-01-01"]):
        with pytest.raises(InputError, match=rf"is '{mixed[1]}' in row 2 of 2 .*mixes numbers and dates"):
            read(of_text(tmp_path, suffix, mixed))


def test_arrow_dates_and_moments_keep_their_unit(tmp_path: Path) -> None:
    moment = datetime(2020, 1, 31, 10, 11, 12, tzinfo=UTC)
    whole = seconds(2020, 1, 31, 10, 11, 12)
    for unit, per_second in {"ms": 10**3, "us": 10**6, "ns": 10**9}.items():  # Parquet has no seconds
        for zone in (None, "UTC", "Europe/Paris"):
            file = of_column(tmp_path, pa.array([moment, None], pa.timestamp(unit, zone)))
            assert times_of(file) == [whole * per_second, None]
            assert read(file).schema.field("timestamp").metadata == {b"unit": unit.encode()}
    for kind in (pa.date32(), pa.date64()):
        assert times_of(of_column(tmp_path, pa.array([date(2020, 1, 31)], kind))) == [seconds(2020, 1, 31)]


def test_a_json_column_of_two_types_is_named_with_its_row(tmp_path: Path) -> None:
    for values, row in ((["5", '"2020-01-01"'], 2), (['"2020-01-01"', "null", "5"], 3)):
        with pytest.raises(InputError, match=rf"rows\.jsonl: column timestamp is .* in row {row}, .*text.*number"):
            read(of_json(tmp_path, *values))
    for value in ("[5]", '{"$date": 5}'):
        with pytest.raises(InputError, match=r"column timestamp is .* in row 1, expected"):
            read(of_json(tmp_path, value))


def test_a_dataset_says_the_unit_of_its_dates_and_counts_what_has_none(tmp_path: Path) -> None:
    rows = [("u", "a", "2020-01-03"), ("u", "b", "2020-01-01T00:00:00.250Z"), ("u", "c", "")]
    file = tmp_path / "rows.csv"
    file.write_text("user,item,timestamp\n" + "".join(",".join(row) + "\n" for row in rows))
    options = {"min_user_interactions": 1, "min_item_interactions": 1}
    dataset = prepare("table", str(tmp_path / "d"), str(file), **options)
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [seconds(2020, 1, 1) * 1000 + 250, seconds(2020, 1, 3) * 1000]
    assert dataset.manifest["source"]["timestamp_unit"] == "ms"
    assert dataset.manifest["dropped"]["rows_with_null"] == 1
    assert collected_rows(source_of("table", str(file))).dropped == {"rows_with_null": 1}


def test_the_number_that_is_not_in_the_declared_unit_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item,timestamp\nu,a,1500000000000\nu,b,1500000000000001\n")
    with pytest.raises(
        InputError, match=r"x\.csv: column timestamp is '1500000000000001' in row 2 of 2 .*microseconds"
    ):
        rows_with_nulls(source_of("table", str(tmp_path / "x.csv"), time_unit="ms"))

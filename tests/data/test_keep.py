"""Conditions of --keep: which rows hold them in text, JSON and Parquet, and which conditions are refused."""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InputError
from data.formats.comparisons import compare_text, compare_wholes
from data.formats.held import none_held
from data.formats.keep_text import parse_condition
from data.formats.places import Places
from jobs.prepare_data import prepare
from tests.data.engine.in_memory import collected_rows
from tests.data.read_rows import rows_with_nulls, source_of

PLACES = Places(file="x", exact=lambda row: f"row {row + 1}", quick=lambda row: f"row {row + 1}")
ORDERS = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def held(condition: str, values: list[Any], kind: pa.DataType) -> list[bool]:
    """Return which values hold a condition on column x, in two chunks."""
    column = pa.chunked_array([pa.array(values[:1], kind), pa.array(values[1:], kind)], kind)
    return parse_condition(condition).holds(column, PLACES).tolist()


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("rating >= 4", "bd"),
        ("rating>4", "d"),
        ("rating = 4", "b"),
        ("rating = 4.0", "b"),
        ("rating != 4", "acd"),
        ("rating < 3.5", "ac"),
        ("event = view", "ad"),
        ("event != view", "bce"),
        ("event in (view, cart)", "abd"),
        ("event in ('view', \"add, to\")", "acd"),
        ("rating in (1, 5)", "ad"),
        ("event not in (view, cart)", "ce"),
        ("event NOT IN (view)", "bce"),
        ("'event' = \"view\"", "ad"),
        ("timestamp = 5", "abcde"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_conditions_keep_rows(condition: str, kept: str, suffix: str, tmp_path: Path) -> None:
    rows = {"user": list("abcde"), "item": ["i"] * 5, "timestamp": [5] * 5, "rating": [1.0, 4.0, 2.5, 5.0, None]}
    rows["event"] = ["view", "cart", "add, to", "view", "buy"]
    table, file = pa.table(rows), tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, file)
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        with file.open("w", newline="") as sink:
            csv.writer(sink).writerows([table.column_names, *(row.values() for row in table.to_pylist())])
    read = collected_rows(source_of("table", str(file), keep=[condition]))
    assert "".join(read.rows.column("user").to_pylist()) == kept
    assert read.dropped == {"rows_with_null": 0, "rows_not_kept": 5 - len(kept)}
    assert read.num_read == 5


def test_all_conditions_must_hold_and_timestamps_of_other_rows_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item,timestamp,rating,event\na,i,5,4,view\nb,i,soon,4,buy\nc,i,5,1,view\n")
    source = source_of("table", str(tmp_path / "x.csv"), keep=["rating >= 2", "event = view"])
    assert rows_with_nulls(source).column("user").to_pylist() == ["a"]
    with pytest.raises(InputError, match="is 'soon' in row 2 of 3"):
        rows_with_nulls(source_of("table", str(tmp_path / "x.csv"), keep=["event = buy"]))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "price = 3",
            "no column 'price' among 'user', 'item', 'timestamp', 'event'; correct --keep 'price = 3'",
        ),
        (
            "event > 3",
            "column event is 'view' in row 1 of 1 .*, which is no number, and --keep 'event > 3' com",
        ),
        ("event", "--keep 'event': is no condition; write COLUMN OPERATOR VALUE"),
        ("event =", "is no condition"),
        ("event in (a 'b)", "cannot read"),
        ("__import__('os').remove('x') = 1", "is no condition"),
    ],
)
def test_bad_conditions_are_named(condition: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item,timestamp,event\na,i,5,view\n")
    with pytest.raises(InputError, match=message):
        rows_with_nulls(source_of("table", str(tmp_path / "x.csv"), keep=[condition]))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "x >= 4 and event = view",
            "the value reads '4 and event = view', which is no single value; repeat --keep",
        ),
        ("x >= 4 or x = 1", "the value reads '4 or x = 1'"),
        ("x >= (4)", "the value reads '(4)'"),
        ("x >= 4 5", "the value reads '4 5'"),
        ("x = <4", "the value reads '<4'"),
        ("x in (add to, view)", "the value reads 'add to'"),
        ("x = a, b", "the value reads 'a, b', several values; write in (...)"),
        ("x = it's", 'cannot read "it\'s"'),
        ("x = 'a' and y = 'b'", "cannot read"),
        ("x => 4", "=> is no operator; write >="),
        ("x =< 4", "=< is no operator; write <="),
        ("x <> 4", "<> is no operator; write !="),
        ("x == 4", "== is no operator; write ="),
        ("x =! 4", "is no condition"),
        ("xin (4)", "is no condition"),
        ("'' = 4", "is no condition"),
        ("x < abc", "< compares numbers or dates, and 'abc' is neither; write a number, or a date such as 2024-05-01"),
        ("x < 1e99999999999999999999", "is neither; write a number"),
        ("x >= 2024-02-30", "the date '2024-02-30' is not in the calendar"),
        ("x = 2024-05-01 25:00", "the date '2024-05-01 25:00' is not in the calendar"),
    ],
)
def test_unclear_conditions_are_refused_before_anything_is_read(condition: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        parse_condition(condition)
    assert repr(condition) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("condition", ["'user id' = 3", '"user id" = 3', "'user id' in (3)", "'user id'=\"3\""])
def test_names_in_either_quotes(condition: str) -> None:
    found = parse_condition(condition)
    assert (found.column, found.values) == ("user id", ("3",))


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(2**60, 2**60 + 3), min_size=1, max_size=6),
    st.integers(-(2**70), 2**70) | st.integers(2**60, 2**60 + 3) | st.sampled_from([Decimal("1.5"), Decimal("-.5")]),
    st.sampled_from(sorted(ORDERS)),
)
def test_whole_numbers_are_compared_exactly(numbers: list[int], value: int | Decimal, operator: str) -> None:
    expected = [ORDERS[operator](number, value) for number in numbers]
    assert held(f"x {operator} {value}", numbers, pa.int64()) == expected
    assert held(f"x {operator} {value}", [str(number) for number in numbers], pa.string()) == expected
    assert held(f"x {operator} {value}", numbers, pa.decimal128(38, 0)) == expected


def test_numbers_at_the_limits() -> None:
    large = 2**64 - 1
    assert held(f"x >= {large}", [large, large - 1, None], pa.uint64()) == [True, False, False]
    assert held(f"x = {large}", [str(large), f"+{large}", f"00{large}", "1"], pa.string()) == [True, True, True, False]
    assert held("x = 00:00:05", [5, 6, None], pa.time32("s")) == [True, False, False]
    assert held("x < 1e999999", [2**63 - 1, None], pa.int64()) == [True, False]
    assert held("x > -1e999999", [-(2**63)], pa.int64()) == [True]
    assert held("x > 1e-999999", [0, 1], pa.int64()) == [False, True]
    assert held("x <= 2.5", ["2", "3", "2.25", "-1e3", ".5", ""], pa.string()) == [True, False, True, True, True, False]
    assert held("x = 1e3", ["1000", "1000.0", "1e3", "999"], pa.string()) == [True, True, True, False]
    # Ids that look like numbers without end are all infinite in float64.
    assert held("x = 1e999", ["1e999", "2e999"], pa.string()) == [True, False]
    assert held("x = 4.5", [Decimal("4.50"), Decimal("4.51")], pa.decimal128(9, 2)) == [True, False]
    assert held("x != 4", [4.0, None, float("nan")], pa.float64()) == [False, False, True]
    assert compare_wholes(pa.chunked_array([], pa.int64()), ">", [Decimal(1)]).to_pylist() == []
    assert compare_text(pa.chunked_array([], pa.large_string()), None, [Decimal(1)]).to_pylist() == []


MOMENTS = [
    "2024-05-01",
    "2024-05-01T00:00",
    "2024-05-01 12:00:00.5",
    "2024-05-01T12:00:00.500000001",
    "2024-05-01T14:00:00+02:00",
    "1960-01-01",
]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("x >= 2024-05-01 12:00", [False, False, True, True, True, False]),
        ("x > 2024-05-01T12:00:00Z", [False, False, True, True, False, False]),
        ("x > '2024-05-01 14:00:00.5+02:00'", [False, False, False, True, False, False]),
        ("x < 2024-05-01", [False, False, False, False, False, True]),
        ("x = 2024-05-01", [True, True, False, False, False, False]),
        ("x in (2024-05-01 12:00, 1960-01-01)", [False, False, False, False, True, True]),
        ("x not in (2024-05-01 12:00, 1960-01-01)", [True, True, True, True, False, False]),
        ("x <= 2024-05-01T12:00:00.500000000", [True, True, True, False, True, True]),
    ],
)
def test_dates_are_compared_as_moments(condition: str, kept: list[bool]) -> None:
    assert held(condition, [*MOMENTS, None, ""], pa.string()) == [*kept, False, False]
    zone = {"2024-05-01T14:00:00+02:00": "2024-05-01T12:00:00"}
    texts = [zone.get(text, text) for text in MOMENTS]
    arrow = pa.array(texts, pa.string()).cast(pa.timestamp("ns"))
    assert held(condition, arrow.to_pylist(), pa.timestamp("ns")) == kept
    assert held(condition, arrow.cast(pa.timestamp("ns", "Asia/Tokyo")).to_pylist(), pa.timestamp("ns", "UTC")) == kept


def test_dates_of_all_types() -> None:
    days = [date(2024, 4, 30), date(2024, 5, 1), None]
    for kind in (pa.date32(), pa.date64()):
        assert held("x >= 2024-04-30 12:00", days, kind) == [False, True, False]
        assert held("x = 2024-05-01", days, kind) == [False, True, False]
    moments = [datetime(2024, 5, 1, tzinfo=UTC) + timedelta(milliseconds=step) for step in (-1, 0, 1)]
    assert held("x < 2024-05-01T00:00:00.0005", moments, pa.timestamp("ms", "UTC")) == [True, True, False]
    assert held("x >= 0001-01-01", moments, pa.timestamp("ns", "UTC")) == [True, True, True]  # beyond 64 bits of ns
    assert held("x != 2024-05-01", ["2024-05-01T00:00Z", "soon", None], pa.string()) == [False, True, False]


@pytest.mark.parametrize(
    ("condition", "values", "kind", "message"),
    [
        ("x >= 2024-05-01", ["2024-05-01", "soon"], pa.string(), "is 'soon' in row 2, which is no date, and --keep"),
        (
            "x >= 2024-05-01",
            ["1714557600"],
            pa.string(),
            "is '1714557600' in row 1, which is no date, and --keep 'x >= 2024-05-01' compares dates; write a number",
        ),
        (
            "x >= 2024-05-01",
            ["2024-05-01", "2023-02-29"],
            pa.string(),
            "'2023-02-29' in row 2, which is not in the",
        ),
        (
            "x >= 17",
            ["2024-05-01"],
            pa.string(),
            "is '2024-05-01' in row 1, which is no number, and --keep 'x >= 17' compares numbers; write a date",
        ),
        ("x >= 2024-05-01", [5], pa.int64(), "column x is int64, and --keep 'x >= 2024-05-01' compares it with"),
        ("x >= 5", [5], pa.timestamp("s"), "compares it with '5'; write a date such as 2024-05-01"),
        ("x = noon", [5], pa.timestamp("s"), "compares it with 'noon'; write a date"),
        (
            "x >= 1",
            [True],
            pa.bool_(),
            "is bool, and --keep 'x >= 1' compares it with '1'; compare with = true",
        ),
        ("x = yes", [True], pa.bool_(), "compares it with 'yes'; compare with = true or = false"),
        ("x = 1", [[1]], pa.list_(pa.int64()), "compares text, numbers or dates; name another column"),
    ],
)
def test_values_that_cannot_be_compared(condition: str, values: list[Any], kind: pa.DataType, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        held(condition, values, kind)


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "1"])
def test_true_and_false_in_any_case(value: str) -> None:
    assert held(f"x = {value}", [True, False, None], pa.bool_()) == [True, False, False]
    assert held(f"x != {value}", [True, False, None], pa.bool_()) == [False, True, False]
    if value != "1":
        assert held(f"x = {value}", ["true", "True", "TRUE", "False", "1"], pa.string()) == [True] * 3 + [False] * 2


def test_the_condition_that_no_row_holds_is_named(tmp_path: Path) -> None:
    rows = [f"u{row},i,{row},{('view', 'cart')[row % 2]},\n" for row in range(9)]
    (tmp_path / "x.csv").write_text("user,item,timestamp,event,note\n" + "".join(rows))

    def message(*keep: str) -> str:
        with pytest.raises(InputError) as error:
            prepare("table", str(tmp_path / "d"), str(tmp_path / "x.csv"), keep=keep)
        read = collected_rows(source_of("table", str(tmp_path / "x.csv"), keep=list(keep)))
        assert str(error.value) == str(none_held(str(tmp_path / "x.csv"), read.num_read, read.held))
        assert not (tmp_path / "d").exists()
        return str(error.value)

    named = message("timestamp >= 3", "event = veiw", "item = j")
    assert named.endswith(
        "none of its 9 rows holds --keep 'event = veiw'; column event has values such as 'view', 'cart'; "
        "correct the condition"
    )
    assert "column note has no values" in message("note = x")
    assert "holds --keep 'event = view' (5 rows) and --keep 'timestamp = 1' (1 rows) together" in message(
        "event = view", "timestamp = 1"
    )


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("timestamp >= 2024-05-02", "bcd"),
        ("timestamp < 2024-05-02", "a"),
        ("timestamp > 2024-05-02 13:30", "cd"),
        ("timestamp = 2024-05-02T13:30:00Z", "b"),
        ("timestamp != 2024-05-02T13:30:00Z", "acd"),
        ("timestamp in (2024-05-02 13:30, '06/01/2024 12:00 AM')", "bd"),
        ("other >= 2024-05-02", "bcd"),
    ],
)
def test_dates_written_as_time_format_says_are_compared_as_moments(condition: str, kept: str, tmp_path: Path) -> None:
    times = ["05/01/2024 11:59 PM", "05/02/2024 01:30 PM", "05/11/2024 01:00 AM", "06/01/2024 12:00 AM"]
    days = ["2024-05-01", "2024-05-02", "2024-05-11", "2024-06-01"]
    lines = [f"u,{item},{time},{day}\n" for item, time, day in zip("abcd", times, days, strict=True)]
    (tmp_path / "x.csv").write_text("user,item,timestamp,other\n" + "".join(lines))
    source = source_of("table", str(tmp_path / "x.csv"), keep=[condition], time_format="%m/%d/%Y %I:%M %p")
    assert "".join(rows_with_nulls(source).column("item").to_pylist()) == kept


def test_a_text_that_is_no_date_of_the_time_format_has_no_order(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user,item,timestamp\nu,a,05/01/2024\nu,b,soon\n")
    message = "column timestamp is 'soon' in row 2 of 2 .*, which is not a date written as '%m/%d/%Y'"
    with pytest.raises(InputError, match=message):
        rows_with_nulls(
            source_of("table", str(tmp_path / "x.csv"), keep=["timestamp > 2024-01-01"], time_format="%m/%d/%Y")
        )
    source = source_of("table", str(tmp_path / "x.csv"), keep=["timestamp = 2024-05-01"], time_format="%m/%d/%Y")
    assert rows_with_nulls(source).column("item").to_pylist() == ["a"]

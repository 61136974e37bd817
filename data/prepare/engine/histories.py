"""Brings the rows of each user together, sorts them by time, and drops exact duplicates.

Users are divided into ranges with about equally many rows. Each segment's rows are first written range by range, in
input order; then each range is read from all segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.formats.time_kinds import TimeKind, common_kind, rescaled
from data.prepare.engine.plan import Segment, Table
from data.prepare.engine.work import load, save
from data.ragged import offsets_of
from kernels.grouping import grouped_order, sort_within

SPREAD, SORT = "spread", "sort"


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """How users are divided.

    Attributes:
        table: the input.
        bounds: range r has the users bounds[r] .. bounds[r + 1] - 1; R + 1 numbers.
        time_kind: the kind of all timestamps; None: there are none.
    """

    table: Table
    bounds: list[int]
    time_kind: TimeKind | None

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def size(self, number: int) -> int:
        """Return the number of users in a range."""
        return self.bounds[number + 1] - self.bounds[number]


def divide_users(rows_of_users: np.ndarray, range_rows: int) -> list[int]:
    """Return the bounds of ranges that have about `range_rows` rows each, and at least one user."""
    total = offsets_of(rows_of_users)
    count = max(1, round(int(total[-1]) / range_rows))
    bounds = np.searchsorted(total, np.arange(1, count) * (int(total[-1]) / count))
    return [0, *(int(bound) for bound in np.unique(bounds) if 0 < bound < len(rows_of_users)), len(rows_of_users)]


def kind_of_times(segments: Sequence[Segment]) -> TimeKind | None:
    """Return the kind that all timestamps are converted to; None: there are none.

    Raises:
        InputError: see `time_kinds.common_kind`.
    """
    kinds = [kind for segment in segments for _, kind in segment.blocks]
    return None if None in kinds else common_kind(TimeKind(**kind) for kind in kinds if kind is not None)


def spread_segment(ranges: Ranges, index: int) -> None:
    """Write the rows of a segment range by range, in input order.

    Files: users.npy, int32, counted from the first user of the range; items.npy, int32; times.npy and splits.npy as in
    a segment, but in the common unit.
    """
    table = ranges.table
    segment, numbers = table.segments[index], {}
    with table.work.writing(SPREAD, index) as (folder, facts):
        for kind in ("users", "items"):
            numbers[kind] = load(table.work.task(f"number/{kind}", 0), f"codes-{index}")
        bounds = np.array(ranges.bounds)
        range_of_code = np.searchsorted(bounds, numbers["users"], side="right") - 1
        users, items = load(segment.folder, "users"), load(segment.folder, "items")
        order, offsets = grouped_order(range_of_code.astype(np.int32)[users], ranges.count)
        relative = (numbers["users"] - bounds[range_of_code]).astype(np.int32)
        save(folder, users=relative[users[order]], items=numbers["items"][items[order]])
        if segment.rows and ranges.time_kind is not None:
            save(folder, times=_in_common_unit(segment, ranges.time_kind)[order])
        if segment.rows and table.has_splits:
            save(folder, splits=load(segment.folder, "splits")[order])
        facts["offsets"] = offsets.tolist()


def _in_common_unit(segment: Segment, common: TimeKind) -> np.ndarray:
    times, start = load(segment.folder, "times"), 0
    if common.unit is None or all(kind is not None and kind["unit"] == common.unit for _, kind in segment.blocks):
        return times
    parts = []
    for rows, kind in segment.blocks:
        assert kind is not None
        parts.append(rescaled(times[start : start + rows], TimeKind(**kind), common))
        start += rows
    return np.concatenate(parts)


def sort_range(ranges: Ranges, number: int) -> None:
    """Write the histories of a range of users, oldest first, without exact duplicates.

    If the source has a split, a user's training rows come first, then those for validation, then those for test. Rows
    with equal times stay in input order. Of rows with equal user, item and time, the first in input order stays.
    Without timestamps, rows are in input order and nothing is dropped.

    Files: offsets.npy, int64 [users + 1]; items.npy, int32, the different items, ascending; local.npy, int32, the place
    of each row's item among them; times.npy and splits.npy as before.
    """
    table = ranges.table
    with table.work.writing(SORT, number) as (folder, facts):
        users, items, times, splits = _gathered(table, number)
        order, offsets = grouped_order(users, ranges.size(number))
        users = users[order]
        if times is not None:
            times = times[order]
            for group in np.flatnonzero(sort_within(offsets, times, order)):
                part = slice(offsets[group], offsets[group + 1])
                by_time = np.argsort(times[part], kind="stable")
                times[part], order[part] = times[part][by_time], order[part][by_time]
        items, splits = items[order], None if splits is None else splits[order]
        if times is not None:
            kept = ~repeats(offsets, items, times)
            facts["duplicates"] = int(len(kept) - np.count_nonzero(kept))
            if facts["duplicates"]:
                users, items, times = users[kept], items[kept], times[kept]
                splits = None if splits is None else splits[kept]
                offsets = offsets_of(np.bincount(users, minlength=ranges.size(number)))
        if splits is not None:
            order = np.lexsort((splits, users))  # stable, so that each part of a user stays in order of time
            items, splits = items[order], splits[order]
            times = None if times is None else times[order]
        different, local = _different(items, int(table.work.facts("number/items", 0)["num_ids"]))
        save(folder, offsets=offsets, local=local, items=different)
        if times is not None:
            save(folder, times=times)
        if splits is not None:
            save(folder, splits=splits)
        facts["rows"] = len(items)


def repeats(offsets: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return which rows have the user, item and time of an earlier row, bool [E]. Times ascend within each user."""
    again = np.zeros(len(times), bool)
    same_time = np.zeros(len(times) + 1, bool)  # as the row before
    same_time[1:-1] = times[1:] == times[:-1]
    same_time[offsets] = False
    rows = np.flatnonzero(same_time[:-1] | same_time[1:])
    runs = np.cumsum(~same_time[:-1])[rows]
    order = np.lexsort((items[rows], runs))  # stable, so that equal rows stay in input order
    equal = (np.diff(runs[order]) == 0) & (np.diff(items[rows][order]) == 0)
    again[rows[order[1:][equal]]] = True
    return again


def _gathered(table: Table, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return users, items, times and splits of a range's rows, from all segments in their order."""
    slices = []
    for index, segment in enumerate(table.segments):
        start, stop = table.work.facts(SPREAD, index)["offsets"][number : number + 2] if segment.rows else (0, 0)
        if start < stop:
            slices.append((table.work.task(SPREAD, index), slice(start, stop)))

    def column(name: str, kind: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, kind), *(load(folder, name)[rows] for folder, rows in slices)])

    return (
        column("users", np.int32),
        column("items", np.int32),
        column("times", np.int64) if table.has_times else None,
        column("splits", np.int8) if table.has_splits else None,
    )


def _different(items: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different items, ascending, int32, and the place of each row's item among them, int32."""
    if num_items > 16 * len(items):
        different, local = np.unique(items, return_inverse=True)
        return different.astype(np.int32), local.astype(np.int32)
    used = np.zeros(num_items, bool)
    used[items] = True
    places = np.cumsum(used, dtype=np.int32) - 1
    return np.flatnonzero(used).astype(np.int32), places[items]

"""Grows small datasets of rows in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.dataset import Dataset, write_dataset
from data.prepare.engine.plan import Sizes
from data.prepare.engine.workplace import Workplace
from data.prepare.growth.growth import Growth
from data.prepare.pipeline import RawOptions, raw_content
from tests.data.engine.memory_source import MemorySource

Row = tuple[str, str, int]


def source_of(rows: list[Row], *, has_times: bool = True, **more: Any) -> MemorySource:
    columns = {
        "user": pa.array([row[0] for row in rows], pa.large_string()),
        "item": pa.array([row[1] for row in rows], pa.large_string()),
        "timestamp": pa.array([row[2] for row in rows], pa.int64()),
    }
    if not has_times:
        del columns["timestamp"]
    return MemorySource(table=pa.table(columns), **more)


def prepared_dataset(
    folder: Path,
    source: MemorySource,
    old: Dataset | None = None,
    *,
    sizes: Sizes | None = None,
    features: dict[str, str] | None = None,
    **options: Any,
) -> Dataset:
    """Prepare rows, appended to `old` if there is one."""
    place = Workplace(folder=folder.with_name(f"{folder.name}.work"), sizes=sizes or Sizes())
    growth = Growth(old=old) if old else None
    with raw_content(source, RawOptions(**options), features or {}, {}, place, growth=growth) as content:
        return write_dataset(str(folder), content)


def histories(dataset: Dataset) -> dict[str, list[tuple[int, str]]]:
    """Each user's times and items, oldest first; without timestamps, places in the history stand for times."""
    users, items = dataset.user_source_ids().to_pylist(), dataset.item_source_ids().to_pylist()
    found = {}
    for user, start, stop in zip(users, dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        times = dataset.timestamps[start:stop] if dataset.timestamps is not None else np.arange(stop - start)
        found[user] = [(int(time), items[item]) for time, item in zip(times, dataset.items[start:stop], strict=True)]
    return found


def targets(dataset: Dataset) -> dict[str, tuple[list[tuple[int, str]], list[tuple[int, str]]]]:
    """Each user's validation and test targets with their times."""
    ends = zip(histories(dataset).items(), dataset.train_end, dataset.valid_end, strict=True)
    return {user: (history[train:valid], history[valid:]) for (user, history), train, valid in ends}

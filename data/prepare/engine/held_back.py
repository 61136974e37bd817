"""Writes the rows that the k-core has removed, with their source ids, so that a later preparation can use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.prepare.engine.final import FINAL, further_columns
from data.prepare.engine.histories import Ranges
from data.prepare.engine.names import Names, rank_stage, texts_of, write_ranks
from data.prepare.engine.plan import KINDS, Kind
from data.prepare.engine.work import load

_PURPOSE = "held"
_COLUMNS: dict[Kind, str] = {"users": "user", "items": "item"}
_NAMES = {"times": "timestamp", "splits": "split"}


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """The rows that the k-core has removed (a `writing.HeldBackRows`), by user and time.

    Attributes:
        ranges: the users.
        names: the ids that occur in these rows.
    """

    ranges: Ranges
    names: dict[Kind, Names]

    def write(self, file: Path) -> None:
        """Write the rows to a Parquet file, a row group for each range of users."""
        work = self.ranges.table.work
        texts = {kind: work.path / f"held-{kind}.arrow" for kind in KINDS}
        for kind in KINDS:
            self.names[kind].write(texts[kind])
        kinds = {"user": pa.large_string(), "item": pa.large_string(), "timestamp": pa.int64(), "split": pa.int8()}
        further = [_NAMES[name] for name in further_columns(self.ranges)]
        schema = pa.schema({name: kinds[name] for name in (*_COLUMNS.values(), *further)})
        with pq.ParquetWriter(file, schema) as writer:
            for number in range(self.ranges.count):
                part, columns = work.task(FINAL, number), {}
                for kind in KINDS:
                    ranks = load(work.task(rank_stage(kind, _PURPOSE), 0), "ranks")[load(part, f"held-{kind}")]
                    columns[_COLUMNS[kind]] = texts_of(texts[kind], self.names[kind].naming.group_rows, ranks)
                for name in further_columns(self.ranges):
                    columns[_NAMES[name]] = pa.array(load(part, f"held-{name}"))
                writer.write_table(pa.table(columns, schema=schema))


def held_back(ranges: Ranges, name: Callable[..., Names]) -> HeldBack:
    """Return the rows that `final.finish_range` has set aside. `name` brings the texts of ids into order."""
    table = ranges.table
    found: dict[Kind, Names] = {}
    for kind in KINDS:
        chosen = np.zeros(table.work.facts(f"number/{kind}", 0)["num_ids"], bool)
        for number in range(ranges.count):
            chosen[load(table.work.task(FINAL, number), f"held-{kind}")] = True
        write_ranks(table, kind, chosen, _PURPOSE)
        found[kind] = name(kind, purpose=_PURPOSE)
    return HeldBack(ranges=ranges, names=found)

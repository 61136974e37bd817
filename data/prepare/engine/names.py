"""Brings the texts of ids from their buckets into the order of final ids, a group of ids at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from data.prepare.engine.plan import Kind, Table
from data.prepare.engine.work import load, load_batch, save, save_batches


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What the tasks of this module need.

    Attributes:
        table: the input. The stage "rank/KIND" has ranks.npy, int64: by number, the final id, or -1.
        kind: users or items.
        num_ids: number of final ids.
        group_rows: ids of a group.
    """

    table: Table
    kind: Kind
    num_ids: int
    group_rows: int

    @property
    def num_groups(self) -> int:
        return -(-self.num_ids // self.group_rows)


def write_ranks(table: Table, kind: Kind, live: np.ndarray) -> None:
    """Write the final ids: live ones are numbered without gaps, in the order of their numbers."""
    if table.work.is_done(f"rank/{kind}", 0):
        return
    with table.work.writing(f"rank/{kind}", 0) as (folder, facts):
        save(folder, ranks=np.where(live, np.cumsum(live) - 1, -1))
        facts["num_ids"] = int(np.count_nonzero(live))


def naming_of(table: Table, kind: Kind, group_rows: int) -> Naming:
    """Return what the tasks need, after `write_ranks`."""
    return Naming(table=table, kind=kind, num_ids=table.work.facts(f"rank/{kind}", 0)["num_ids"], group_rows=group_rows)


def stage(kind: Kind) -> str:
    """Return the name of the stage that groups the ids."""
    return f"names/{kind}"


def group_bucket(naming: Naming, bucket: int) -> None:
    """Write ids.arrow: the final ids of a bucket and their texts, ascending, a record batch for each group."""
    table, kind = naming.table, naming.kind
    with table.work.writing(stage(kind), bucket) as (folder, _):
        texts = load_batch(table.work.task(f"unify/{kind}", bucket) / "ids.arrow", 0).column(0)
        start = sum(table.work.facts(f"unify/{kind}", before)["num_ids"] for before in range(bucket))
        numbers = load(table.work.task(f"number/{kind}", 0), "numbers")[start : start + len(texts)]
        ranks = load(table.work.task(f"rank/{kind}", 0), "ranks")[numbers]
        order = np.flatnonzero(ranks >= 0)
        order = order[np.argsort(ranks[order], kind="stable")]
        limits = np.searchsorted(ranks[order], np.arange(naming.num_groups + 1) * naming.group_rows)
        parts = [order[first:last] for first, last in pairwise(limits)]
        batches = [pa.record_batch({"rank": ranks[part], "id": texts.take(pa.array(part))}) for part in parts]
        save_batches(folder / "ids.arrow", batches)


@dataclass(frozen=True, kw_only=True)
class Names:
    """The source ids of users or items in the order of dense ids (a `writing.IdGroups`)."""

    naming: Naming

    def __len__(self) -> int:
        return self.naming.num_ids

    def groups(self) -> Iterator[pa.Array]:
        """Yield the texts of all final ids in order, large_string, a group at a time."""
        table, kind = self.naming.table, self.naming.kind
        files = [table.work.task(stage(kind), bucket) / "ids.arrow" for bucket in range(table.num_buckets)]
        for group in range(self.naming.num_groups):
            batches = [load_batch(file, group) for file in files]
            ranks = np.concatenate([batch.column("rank").to_numpy() for batch in batches])
            texts = pa.concat_arrays([batch.column("id") for batch in batches])
            yield texts if len(batches) == 1 else texts.take(pa.array(np.argsort(ranks)))

    def collected(self) -> pa.Array:
        """Return all texts at once."""
        return pa.concat_arrays(list(self.groups()))

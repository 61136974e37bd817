"""Brings the texts of ids from their buckets into the order of final ids, a group of ids at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.prepare.engine.plan import Kind, Table
from data.prepare.engine.work import Executor, load, load_batch, save, save_batches


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What the tasks of this module need.

    Attributes:
        table: the input.
        kind: users or items.
        purpose: distinguishes the final ids ("final") from other choices among the ids. The stage "rank-PURPOSE/KIND"
            has ranks.npy, int64: by number, the rank among those that are chosen, or -1.
        num_ids: number of ids that are chosen.
        group_rows: ids of a group.
    """

    table: Table
    kind: Kind
    purpose: str
    num_ids: int
    group_rows: int

    @property
    def stage(self) -> str:
        return f"names-{self.purpose}/{self.kind}"

    @property
    def num_groups(self) -> int:
        return max(1, -(-self.num_ids // self.group_rows))  # a file of ids has a group even if it has no ids


FINAL = "final"


def rank_stage(kind: Kind, purpose: str = FINAL) -> str:
    """Return the name of the stage that has the ranks."""
    return f"rank-{purpose}/{kind}"


def write_ranks(table: Table, kind: Kind, chosen: np.ndarray, purpose: str = FINAL) -> None:
    """Write ranks.npy: the chosen ids, bool by number, are numbered without gaps, in the order of their numbers."""
    stage = rank_stage(kind, purpose)
    if table.work.is_done(stage, 0):
        return
    with table.work.writing(stage, 0) as (folder, facts):
        save(folder, ranks=np.where(chosen, np.cumsum(chosen) - 1, -1))
        facts["num_ids"] = int(np.count_nonzero(chosen))


def named(table: Table, kind: Kind, *, group_rows: int, executor: Executor, purpose: str = FINAL) -> Names:
    """Bring the texts of the chosen ids into order, after `write_ranks`."""
    num_ids = table.work.facts(rank_stage(kind, purpose), 0)["num_ids"]
    naming = Naming(table=table, kind=kind, purpose=purpose, num_ids=num_ids, group_rows=group_rows)
    table.work.run(naming.stage, partial(group_bucket, naming), table.num_buckets, executor)
    return Names(naming=naming)


def group_bucket(naming: Naming, bucket: int) -> None:
    """Write ids.arrow: the final ids of a bucket and their texts, ascending, a record batch for each group."""
    table, kind = naming.table, naming.kind
    with table.work.writing(naming.stage, bucket) as (folder, _):
        texts = load_batch(table.work.task(f"unify/{kind}", bucket) / "ids.arrow", 0).column(0)
        start = sum(table.work.facts(f"unify/{kind}", before)["num_ids"] for before in range(bucket))
        numbers = load(table.work.task(f"number/{kind}", 0), "numbers")[start : start + len(texts)]
        ranks = load(table.work.task(rank_stage(kind, naming.purpose), 0), "ranks")[numbers]
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
        table = self.naming.table
        files = [table.work.task(self.naming.stage, bucket) / "ids.arrow" for bucket in range(table.num_buckets)]
        for group in range(self.naming.num_groups):
            batches = [load_batch(file, group) for file in files]
            ranks = np.concatenate([batch.column("rank").to_numpy() for batch in batches])
            texts = pa.concat_arrays([batch.column("id") for batch in batches])
            yield texts if len(batches) == 1 else texts.take(pa.array(np.argsort(ranks)))

    def write(self, file: Path) -> None:
        """Write the texts to an Arrow file, a record batch for each group, for `texts_of`."""
        schema = pa.schema({"id": pa.large_string()})
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for texts in self.groups():
                writer.write_batch(pa.record_batch({"id": texts}))

    def collected(self) -> pa.Array:
        """Return all texts at once."""
        return pa.concat_arrays(list(self.groups()))


def texts_of(file: Path, group_rows: int, ranks: np.ndarray) -> pa.Array:
    """Return the texts of ids from a file that `Names.write` wrote. The file is mapped, not read as a whole."""
    order = np.argsort(ranks, kind="stable")
    ascending = ranks[order]
    opened = pa.ipc.open_file(pa.memory_map(str(file)))
    limits = np.searchsorted(ascending, np.arange(opened.num_record_batches + 1) * group_rows)
    parts = [
        opened.get_batch(group).column("id").take(pa.array(ascending[first:last] - group * group_rows))
        for group, (first, last) in enumerate(pairwise(limits))
        if first < last
    ]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_arrays([pa.array([], pa.large_string()), *parts]).take(pa.array(back))

"""Writes and reads the rank of every evaluated target, so that runs can be compared target by target.

If the items were divided into groups, a file also holds each target's group, and its rank among the items of the group.

A file holds one split of one evaluation, and the facts that decide whether two files may be compared. It depends
neither on the number of ranks of the evaluation nor on its speed, so equal evaluations have equal bytes.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from storage.durable_files import replacing
from storage.plain_json import json_text

# Targets that are converted, written and read at a time. A target takes about 100 bytes meanwhile.
ROW_GROUP = 1 << 17
_FACTS = b"mdsrec_ranks"
_COLUMNS = {"user": pa.string(), "position": pa.int32(), "item": pa.string(), "rank": pa.int64()}
# These columns say which target a row is about.
_TARGET = ("user", "position", "item")


@dataclass(frozen=True, kw_only=True)
class RankFacts:
    """What a file of ranks was made from.

    Attributes:
        split: "valid" or "test".
        model: the model's name.
        seed: the seed of the training.
        checkpoint_step: the step of the checkpoint; None for a model that is not trained.
        settings: how items were scored and ranked, see `evaluation.result_settings.score_settings`.
        fingerprints: of the dataset and the graph.
        groups: for each grouping of the items the names of its groups.
    """

    split: str
    model: str
    seed: int
    checkpoint_step: int | None
    settings: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ChosenRanks:
    """Which targets of a file are read, and which of their ranks.

    Attributes:
        grouping: the grouping of `group`; None: all targets are read.
        group: the targets of this group are read.
        among: the grouping within which the targets are ranked; None: ranks are among all items.
    """

    grouping: str | None = None
    group: str | None = None
    among: str | None = None


ALL_RANKS = ChosenRanks()


def ranks_path(result: Path, split: str) -> Path:
    """Return the file with the ranks of a result file.

    `metrics.json` has ranks-test.parquet, `evaluation-best.json` has evaluation-best-ranks-test.parquet.
    """
    before = "" if result.name == "metrics.json" else f"{result.stem}-"
    return result.with_name(f"{before}ranks-{split}.parquet")


def write_ranks(
    path: Path,
    facts: RankFacts,
    *,
    users: np.ndarray,
    positions: np.ndarray,
    items: np.ndarray,
    ranks: np.ndarray,
    user_names: pa.Array,
    item_names: pa.Array,
    within: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> None:
    """Write ranks to a Parquet file, completely or not at all. Memory: that of `ROW_GROUP` rows.

    Columns: `user` and `item` (source ids, strings), `position` (int32, the place of the target in the user's
    sequence, from 0) and `rank` (int64, from 1). Each grouping of `facts.groups` adds two: the name of the target's
    group (string, the column is named after the grouping), and `rank_in_<grouping>` (int64, from 1). Rows keep their
    order.

    Args:
        path: the file to write or replace.
        facts: what the ranks were made from.
        users: int64 [n].
        positions: int64 [n].
        items: int64 [n].
        ranks: int64 [n].
        user_names: source ids of all users, strings [U].
        item_names: source ids of all items, strings [N].
        within: for each grouping the number of each target's group, int32 [n], and its rank in it, int64 [n].
    """
    stated = {name: getattr(facts, name) for name in RankFacts.__dataclass_fields__}
    if not facts.groups:
        del stated["groups"]  # so the file has the bytes that earlier versions wrote
    schema = pa.schema(list(_columns(facts.groups).items()), metadata={_FACTS: json_text(stated).encode()})
    with replacing(path, one_writer=True) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(ranks), ROW_GROUP):
            part = slice(first, first + ROW_GROUP)
            table = {
                "user": user_names.take(pa.array(users[part])).cast(pa.string()),
                "position": positions[part].astype(np.int32),
                "item": item_names.take(pa.array(items[part])).cast(pa.string()),
                "rank": ranks[part],
            }
            for grouping, (labels, own_ranks) in (within or {}).items():
                table[grouping] = pa.array(facts.groups[grouping], pa.string()).take(pa.array(labels[part]))
                table[rank_column(grouping)] = own_ranks[part]
            writer.write_table(pa.table(table, schema=schema), row_group_size=ROW_GROUP)


@dataclass(frozen=True, kw_only=True)
class SavedRanks:
    """An opened file of ranks.

    Attributes:
        path: the file.
        facts: what the ranks were made from.
        num_targets: the number of rows n.
    """

    path: Path
    facts: RankFacts
    num_targets: int

    def chunks(self, chosen: ChosenRanks = ALL_RANKS) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the chosen targets and their ranks (int64) in order, `ROW_GROUP` at a time.

        The table of targets has the columns user, position and item.

        Raises:
            InputError: the file cannot be read.
        """
        ranks = "rank" if chosen.among is None else rank_column(chosen.among)
        columns = {name: _COLUMNS[name] for name in _TARGET} | {ranks: pa.int64()}
        held = pa.table({name: pa.array([], kind) for name, kind in columns.items()})
        try:
            with pq.ParquetFile(self.path) as parquet:
                for number in range(parquet.num_row_groups):
                    held = pa.concat_tables([held, _read(parquet, number, list(columns), chosen)])
                    while len(held) >= ROW_GROUP:
                        yield _split(held.slice(0, ROW_GROUP), ranks)
                        held = held.slice(ROW_GROUP)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.path, error) from None
        if len(held):
            yield _split(held, ranks)


def open_ranks(path: Path) -> SavedRanks:
    """Open a file that `write_ranks` wrote. Only its end is read.

    Raises:
        InputError: it is not such a file, or it is damaged.
    """
    try:
        with pq.ParquetFile(path) as parquet:
            schema, num_targets = parquet.schema_arrow, parquet.metadata.num_rows
        facts = None
        if _FACTS in (schema.metadata or {}):
            facts = RankFacts(**json.loads(schema.metadata[_FACTS]))
        if facts is None or {column.name: column.type for column in schema} != _columns(facts.groups):
            raise _unreadable(path, f"it has the columns {', '.join(schema.names)}, and was not written as ranks")
    except InputError:
        raise
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    return SavedRanks(path=path, facts=facts, num_targets=num_targets)


def rank_column(grouping: str) -> str:
    """Return the column with the ranks within the groups of a grouping."""
    return f"rank_in_{grouping}"


def _columns(groupings: Iterable[str]) -> dict[str, pa.DataType]:
    """Return the columns of a file with these groupings."""
    more = ({grouping: pa.string(), rank_column(grouping): pa.int64()} for grouping in groupings)
    return reduce(operator.or_, more, dict(_COLUMNS))


def _read(parquet: pq.ParquetFile, number: int, columns: list[str], chosen: ChosenRanks) -> pa.Table:
    """Return columns of the chosen rows of a row group."""
    if chosen.grouping is None:
        return parquet.read_row_group(number, columns=columns).replace_schema_metadata()
    read = parquet.read_row_group(number, columns=[*columns, chosen.grouping]).replace_schema_metadata()
    return read.filter(pc.equal(read[chosen.grouping], chosen.group)).select(columns)


def _split(rows: pa.Table, ranks: str) -> tuple[pa.Table, np.ndarray]:
    return rows.select(list(_TARGET)), rows[ranks].to_numpy()


def _unreadable(path: Path, cause: object) -> InputError:
    first_line = next(iter(str(cause).splitlines()), "")
    return InputError(
        f"{path}: is not a readable file of ranks ({first_line}); delete the file and write it again with "
        "jobs/evaluate.py"
    )

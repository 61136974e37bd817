"""What the stages of a preparation share: sizes of their parts, rules, and the segments of the input.

Legend of all stages: E rows, U users, N items; S segments, B buckets of ids, R ranges of users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from data.prepare.cold import ColdRule
from data.prepare.engine.work import Work
from data.prepare.split import SplitRule

Kind = Literal["users", "items"]
KINDS: tuple[Kind, ...] = ("users", "items")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the parts of each stage are. They decide the memory of a process, and nothing of the dataset.

    Attributes:
        chunk_bytes: bytes of the input that one task reads, where a file can be divided.
        block_bytes: bytes of the input that are read at once.
        segment_rows: rows after which a task that reads the input begins a new segment.
        segment_id_bytes: bytes of ids after which it does.
        bucket_bytes: bytes of the input for each bucket of ids.
        range_rows: about as many rows has each range of users. A user is never divided.
        group_rows: ids of a row group of users.parquet and items.parquet.
    """

    chunk_bytes: int = 1 << 26
    block_bytes: int = 1 << 24
    segment_rows: int = 1 << 22
    segment_id_bytes: int = 1 << 28
    bucket_bytes: int = 1 << 29
    range_rows: int = 1 << 22
    group_rows: int = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is kept of the interactions, and how they are split.

    Attributes:
        min_user_interactions: fewest interactions of a user in the k-core that is kept; 1: no limit.
        min_item_interactions: fewest interactions of an item in it; 1: no limit.
        max_history: number of most recent interactions that are kept of each user; None: all.
        split: the rule for training, validation and test, unless the source has a split of its own.
        hold_back: whether the rows that the k-core removes are written to a file of their own.
        cold: which items are held out of training; None: none.
    """

    min_user_interactions: int = 5
    min_item_interactions: int = 5
    max_history: int | None = None
    split: SplitRule = field(default_factory=SplitRule)
    hold_back: bool = False
    cold: ColdRule | None = None


@dataclass(frozen=True, kw_only=True)
class KnownIds:
    """Users and items that get the first numbers, in this order, and stay whatever the k-core says.

    Attributes:
        users: large_string, each once. Each must have a row in the input.
        items: large_string, each once.
    """

    users: pa.Array
    items: pa.Array


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive rows of a chunk, with ids as codes. Code c is the (c+1)-th different id in the order of its rows.

    Attributes:
        folder: users.npy and items.npy, int32 [rows], the codes; times.npy, int64, unless the source has no
            timestamps; splits.npy, int8, if it has a split; for each kind of id, KIND-rows.npy, int64 (the number of
            rows of each code), KIND-codes.npy, int32 (the codes by bucket, ascending in each) and KIND-ids.arrow (the
            ids in the same order, a record batch for each bucket).
        rows: number of rows.
        offsets: for each kind of id, the start of each bucket in KIND-codes.npy: B + 1 numbers.
        blocks: for each block of rows, their number, and what its timestamps are (the fields of a TimeKind, or None).
    """

    folder: Path
    rows: int
    offsets: Mapping[Kind, list[int]]
    blocks: list[tuple[int, dict[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The input after it was read: what the further stages need to know.

    Attributes:
        work: the work folder.
        segments: the segments in the order of their rows.
        num_buckets: B.
        has_times: whether rows have timestamps.
        has_splits: whether rows have the source's own split.
        num_known: for each kind of id, the number of known ids; they have the numbers below.
    """

    work: Work
    segments: list[Segment]
    num_buckets: int
    has_times: bool
    has_splits: bool
    num_known: Mapping[Kind, int]

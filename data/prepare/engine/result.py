"""What a preparation hands over for the dataset to be written: files of the work folder, and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.errors import InputError
from data.formats.time_kinds import TimeKind
from data.prepare.engine.core import CORE
from data.prepare.engine.final import COLD, FINAL, SPLIT, Finishing, sequences_stage
from data.prepare.engine.held_back import HeldBack
from data.prepare.engine.names import Names, rank_stage
from data.prepare.engine.plan import Kind, Table
from data.prepare.engine.work import load
from data.ragged import offsets_of
from data.stored_sequences import StoredSequences


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The result of all stages. It refers to files in the work folder.

    Attributes:
        sequences: every user's items and the split.
        user_ids: the source ids of users.
        item_ids: the source ids of items.
        split: method of the split and its parameters.
        dropped: number of dropped rows, users or items for each reason.
        held_back: the rows that the k-core has removed; None: they were not asked for.
        time_kind: what all timestamps are; None: there are none.
        cold: bool [N], the items that are held out of training; None: none are.
    """

    sequences: StoredSequences
    user_ids: Names
    item_ids: Names
    split: dict[str, Any]
    dropped: dict[str, int]
    held_back: HeldBack | None
    time_kind: TimeKind | None
    cold: np.ndarray | None = None


def stored_sequences(finishing: Finishing, *, with_times: bool) -> StoredSequences:
    """Return the sequences of all ranges, one after the other; without times, they need not be in order of time."""
    ranges, work = finishing.ranges, finishing.ranges.table.work
    parts = [work.task(sequences_stage(finishing.rules), number) for number in range(ranges.count)]
    splits = [work.task(SPLIT, number) for number in range(ranges.count)]
    counts = np.zeros(work.facts(CORE, 0)["num_items"], np.int64)
    for folder in splits:
        counts[load(folder, "training")] += load(folder, "training-counts")
    return StoredSequences(
        offsets=offsets_of(np.concatenate([load(folder, "lengths") for folder in parts])),
        item_files=[folder / "items.npy" for folder in parts],
        time_files=[folder / "times.npy" for folder in parts] if with_times and ranges.table.has_times else None,
        train_end=np.concatenate([load(folder, "train_end") for folder in splits]),
        valid_end=np.concatenate([load(folder, "valid_end") for folder in splits]),
        training_counts=counts,
    )


def num_dropped(table: Table, kind: Kind) -> int:
    """Return how many users or items the k-core has removed."""
    return int(table.work.facts(f"number/{kind}", 0)["num_ids"] - table.work.facts(rank_stage(kind), 0)["num_ids"])


def check_training(finishing: Finishing) -> None:
    """Raise InputError if the split leaves nothing to train on."""
    work, count = finishing.ranges.table.work, finishing.ranges.count
    if any(work.facts(SPLIT, number)["training_rows"] for number in range(count)):
        return
    if sum(work.facts(SPLIT, number).get("cold_rows", 0) for number in range(count)):
        assert finishing.rules.cold is not None
        raise finishing.rules.cold.nothing_left(load(work.task(COLD, 0), "cold"))
    if finishing.moments is None:
        raise InputError("split: no interaction is for training in the source's own split; correct the split")
    filled = [times for number in range(count) if len(times := load(work.task(FINAL, number), "sorted-times"))]
    first, last = min(int(times[0]) for times in filled), max(int(times[-1]) for times in filled)
    raise InputError(
        f"split global-time: no interaction is before {finishing.moments[0]}, so there are none to train on; use a "
        f"later --valid-from, as timestamps go from {first} to {last}"
    )

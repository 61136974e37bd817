"""The last stages of a range of users: what is left after the k-core, in final ids, cut to max_history, and split.

The split also drops the training interactions of cold items, if items are held out of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.prepare.cold import choose_cold, cold_in_training
from data.prepare.engine.core import CORE, num_exempt
from data.prepare.engine.histories import SORT, Ranges
from data.prepare.engine.names import rank_stage
from data.prepare.engine.numbering import id_of
from data.prepare.engine.plan import Rules
from data.prepare.engine.work import Work, load, save
from data.prepare.split import SplitRule, global_time, leave_one_out, time_quantiles
from data.ragged import offsets_of, ragged_indices

FINAL, SPLIT, COLD = "finish", "split", "cold"
_LAST_SPLIT = 2
# The number of users whose interactions the source's split puts in another order than that of time.
NOT_BY_TIME = "users_not_in_order_of_time"


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """What the tasks of this module need.

    Attributes:
        ranges: the users.
        rules: what is kept.
        moments: for a global-time split, when validation and test start; None: not known yet, or another split.
    """

    ranges: Ranges
    rules: Rules
    moments: tuple[int, int] | None = None


def finish_range(finishing: Finishing, number: int) -> None:
    """Write the final histories of a range of users.

    Files: live.npy, bool, which users of the range are left; lengths.npy, int64, for each of those; items.npy, int64,
    final ids; times.npy, int64; train_end.npy and valid_end.npy, int64, if the source has a split; sorted-times.npy,
    int64, if moments of a split are to be found. With `hold_back`, held-users.npy and held-items.npy, int32, and
    held-times.npy and held-splits.npy: the rows that the k-core removes.
    """
    ranges, rules = finishing.ranges, finishing.rules
    work, table = ranges.table.work, ranges.table
    part = work.task(SORT, number)
    with work.writing(FINAL, number) as (folder, facts):
        offsets, local, items = load(part, "offsets"), load(part, "local"), load(part, "items")
        is_live = load(work.task(CORE, 0), "live")[items]
        users = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
        kept = is_live[local]
        counts = np.bincount(users[kept], minlength=ranges.size(number))
        live = counts >= rules.min_user_interactions
        live[: num_exempt(ranges, number)] = True
        kept &= live[users]
        lengths = np.where(live, counts, 0)
        if rules.hold_back:
            held = {"users": users + np.int32(ranges.bounds[number]), "items": items[local]}
            held |= {name: load(part, name) for name in further_columns(ranges)}
            save(folder, **{f"held-{name}": column[~kept] for name, column in held.items()})
        rows = np.flatnonzero(kept)
        before = len(rows)
        if rules.max_history is not None:
            recent = np.minimum(lengths, rules.max_history)
            rows = rows[ragged_indices(offsets_of(lengths)[1:] - recent, recent)]
            lengths = recent
        save(
            folder,
            live=live,
            lengths=lengths[live],
            items=load(work.task(rank_stage("items"), 0), "ranks")[items[local[rows]]],
        )
        facts |= {"users": int(np.count_nonzero(live)), "rows": len(rows)}
        facts |= {"core_rows": len(local) - before, "truncated": before - len(rows)}
        if len(empty := np.flatnonzero(live & (lengths == 0))):
            facts["empty_user"] = ranges.bounds[number] + int(empty[0])
        if table.has_times:
            times = load(part, "times")[rows]
            save(folder, times=times)
            if rules.split.method == "global-time" and not table.has_splits:
                save(folder, **{"sorted-times": np.sort(times)})
        if table.has_splits:
            splits, starts = load(part, "splits")[rows], offsets_of(lengths)
            if table.has_times:
                falls = np.flatnonzero(np.diff(times) < 0) + 1
                not_by_time = np.unique(users[rows[np.setdiff1d(falls, starts)]])
                facts[NOT_BY_TIME] = len(not_by_time)
            ends = [np.concatenate([[0], np.cumsum(splits < limit)]) for limit in (1, _LAST_SPLIT)]
            train_end, valid_end = ((end[starts[1:]] - end[starts[:-1]])[live] for end in ends)
            save(folder, train_end=train_end, valid_end=valid_end)


def further_columns(ranges: Ranges) -> list[str]:
    """Return the columns that rows have beside users and items."""
    return [name for name, there in (("times", ranges.table.has_times), ("splits", ranges.table.has_splits)) if there]


def check_users(ranges: Ranges, facts: Sequence[dict[str, Any]], name: str) -> None:
    """Check the users that the tasks of `finish_range` complained about.

    Raises:
        InputError: a known user has no rows.
    """
    for of_range in facts:
        if "empty_user" in of_range:
            user = id_of(ranges.table, "users", of_range["empty_user"])
            raise InputError(f"{name}: has no interaction of user {user!r}, who must stay; give at least one")


def split_range(finishing: Finishing, number: int) -> None:
    """Write train_end.npy and valid_end.npy, int64, for the users of a range, and training.npy.

    training.npy has the items with training interactions, int64, and training-counts.npy their numbers. If there are
    cold items, their training interactions are dropped: left.npy, bool, says of which users something is left, and
    lengths.npy, items.npy and times.npy are those of `finish_range` without what was dropped.
    """
    work = finishing.ranges.table.work
    part = work.task(FINAL, number)
    with work.writing(SPLIT, number) as (folder, facts):
        lengths, items = load(part, "lengths"), load(part, "items")
        offsets = offsets_of(lengths)
        if finishing.ranges.table.has_splits:
            train_end, valid_end = load(part, "train_end"), load(part, "valid_end")
        elif finishing.moments is not None:
            train_end, valid_end = global_time(offsets, load(part, "times"), *finishing.moments)
        else:
            train_end, valid_end = leave_one_out(offsets)
        if finishing.rules.cold is not None:
            dropped = cold_in_training(offsets, items, train_end, load(work.task(COLD, 0), "cold"))
            fewer = np.diff(np.concatenate([[0], np.cumsum(dropped)])[offsets])
            left = lengths > fewer
            facts |= {"cold_rows": int(np.count_nonzero(dropped)), "empty_users": int(np.count_nonzero(~left))}
            items = items[~dropped]
            lengths, train_end, valid_end = ((ends - fewer)[left] for ends in (lengths, train_end, valid_end))
            offsets = offsets_of(lengths)
            save(folder, left=left, lengths=lengths, items=items)
            if finishing.ranges.table.has_times:
                save(folder, times=load(part, "times")[~dropped])
        training = items[ragged_indices(offsets[:-1], train_end)]
        num_items = int(work.facts(CORE, 0)["num_items"])
        if num_items > 16 * len(training):
            used, counts = np.unique(training, return_counts=True)
        else:
            counts = np.bincount(training, minlength=num_items)
            used = np.flatnonzero(counts)
            counts = counts[used]
        save(folder, train_end=train_end, valid_end=valid_end, training=used, **{"training-counts": counts})
        facts["training_rows"] = len(training)


def moments_of(work: Work, num_ranges: int, rule: SplitRule) -> tuple[int, int]:
    """Return when validation and test start, for a global-time split: as stated, or quantiles of all timestamps."""
    if rule.valid_from is not None and rule.test_from is not None:
        return rule.valid_from, rule.test_from
    parts = [load(work.task(FINAL, number), "sorted-times") for number in range(num_ranges)]
    return time_quantiles(parts, rule.valid_fraction, rule.test_fraction)


def write_cold(finishing: Finishing, groups: Iterable[pa.Array]) -> None:
    """Write cold.npy, bool [N]: which items are held out of training.

    Args:
        finishing: the rules, which say that some are.
        groups: the source ids of all items in the order of final ids, a group at a time.

    Raises:
        InputError: see `cold.choose_cold`.
    """
    work, rule = finishing.ranges.table.work, finishing.rules.cold
    assert rule is not None
    if not work.is_done(COLD, 0):
        with work.writing(COLD, 0) as (folder, _):
            save(folder, cold=choose_cold(groups, rule))


def sequences_stage(rules: Rules) -> str:
    """Return the stage whose tasks have the histories as they come into the dataset."""
    return FINAL if rules.cold is None else SPLIT


def live_users(finishing: Finishing, number: int) -> np.ndarray:
    """Return which users of a range come into the dataset, bool."""
    work = finishing.ranges.table.work
    live = np.array(load(work.task(FINAL, number), "live"))
    if finishing.rules.cold is not None:
        live[live] = load(work.task(SPLIT, number), "left")
    return live

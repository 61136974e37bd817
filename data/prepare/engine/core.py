"""The k-core: the largest set in which each user and each item has enough interactions.

Rounds repeat until no item is removed. In a round, a task counts the rows of each item in its range of users, for live
items and users with enough rows of live items. All that a round needs of the one before is which items are live.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.prepare.engine.histories import SORT, Ranges
from data.prepare.engine.plan import Rules
from data.prepare.engine.work import Executor, load, save
from kernels.grouping import count_of_live_users

CORE, _LIVE, _ROUND = "core", "core-live", "core-round"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a task of a round needs.

    Attributes:
        ranges: the users.
        minimum: fewest interactions of a user.
        number: number of the round. Before it begins, the stage "core-live" has live.npy, bool [N], for this number.
    """

    ranges: Ranges
    minimum: int
    number: int

    @property
    def stage(self) -> str:
        return f"{_ROUND}-{self.number}"


def count_range(round_: Round, number: int) -> None:
    """Write counts.npy, int64: the live rows of each item of a range, in the order of the range's items.npy."""
    ranges = round_.ranges
    work = ranges.table.work
    with work.writing(round_.stage, number) as (folder, _):
        part = work.task(SORT, number)
        is_live = load(work.task(_LIVE, round_.number), "live")[load(part, "items")]
        counts = np.zeros(len(is_live), np.int64)
        exempt = num_exempt(ranges, number)
        count_of_live_users(load(part, "offsets"), load(part, "local"), is_live, round_.minimum, exempt, counts)
        save(folder, counts=counts)


def num_exempt(ranges: Ranges, number: int) -> int:
    """Return how many users of a range are known. They are the first, and need no interactions."""
    return max(0, min(ranges.table.num_known["users"], ranges.bounds[number + 1]) - ranges.bounds[number])


def find_core(ranges: Ranges, rules: Rules, executor: Executor) -> None:
    """Write live.npy, bool [N]: which items are in the k-core; known items always are."""
    work = ranges.table.work
    if work.is_done(CORE, 0):
        return
    number = max((int(path.name) for path in work.path.glob(f"{_LIVE}/[0-9]*")), default=0)
    live = load(work.task(_LIVE, number), "live") if number else _begin(ranges, 1, None)
    number = max(number, 1)
    while True:
        counts = _counts(Round(ranges=ranges, minimum=rules.min_user_interactions, number=number), executor)
        enough = counts >= rules.min_item_interactions
        enough[: ranges.table.num_known["items"]] = True
        remaining = live & enough
        if np.array_equal(remaining, live):
            break
        live, number = _begin(ranges, number + 1, remaining), number + 1
        shutil.rmtree(work.path / f"{_ROUND}-{number - 1}")
    with work.writing(CORE, 0) as (folder, facts):
        save(folder, live=live)
        facts |= {"rounds": number, "num_items": int(np.count_nonzero(live))}


def _begin(ranges: Ranges, number: int, live: np.ndarray | None) -> np.ndarray:
    work = ranges.table.work
    if live is None:
        live = np.ones(work.facts("number/items", 0)["num_ids"], bool)
    with work.writing(_LIVE, number) as (folder, _):
        save(folder, live=live)
    return live


def _counts(round_: Round, executor: Executor) -> np.ndarray:
    """Run a round, and return the live rows of each item, int64 [N]."""
    ranges = round_.ranges
    work = ranges.table.work
    work.run(round_.stage, partial(count_range, round_), ranges.count, executor)
    counts = np.zeros(work.facts("number/items", 0)["num_ids"], np.int64)
    for number in range(ranges.count):
        counts[load(work.task(SORT, number), "items")] += load(work.task(round_.stage, number), "counts")
    return counts

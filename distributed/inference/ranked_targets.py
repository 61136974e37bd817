"""The ranks of a split's targets, among all items and among those of the target's own group. n: targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.item_groups import Grouping


@dataclass(kw_only=True)
class GroupRanks:
    """The groups of ranked targets in one grouping of the items, and the ranks within them.

    Attributes:
        grouping: the grouping.
        labels: int32 [n], the number of each target's group.
        ranks: int64 [n], from 1, among the items of the target's group.
    """

    grouping: Grouping
    labels: np.ndarray
    ranks: np.ndarray


@dataclass(kw_only=True)
class Ranked:
    """The ranked targets of a split.

    Attributes:
        users: int64 [n].
        positions: int64 [n], the places of the targets in their users' sequences.
        items: int64 [n], the targets.
        ranks: int64 [n], from 1, among all items.
        within: the ranks within the target's own group, for each grouping that was asked for.
    """

    users: np.ndarray
    positions: np.ndarray
    items: np.ndarray
    ranks: np.ndarray
    within: tuple[GroupRanks, ...] = ()

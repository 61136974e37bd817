"""Divides items into groups, so that a target can also be ranked among the items of its own group.

There are two *groupings*:

- "domain", of a run with several datasets: the items of each dataset are a group.
- "training": *warm* items have training interactions. *Cold* items were held out of training when the dataset was
  prepared. Other items without training interactions were *never trained*.

N: items, G: groupings, n: any number of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.domains import Domain
from data.sequences import SequenceArrays, Split, Targets, target_items

# Targets that are looked at at a time.
_BLOCK = 1 << 20
WARM, COLD, NEVER_TRAINED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class ItemGroup:
    """A group of items.

    Attributes:
        name: its name, as in `jobs/compare.py --targets NAME`.
        targets: the targets of the group, in words.
        candidates: its items, in words.
        size: how many items it has.
    """

    name: str
    targets: str
    candidates: str
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """A division of all items into groups. An item's label is the number of its group.

    Either `labels` is set, or `first_items`.

    Attributes:
        name: "domain" or "training".
        groups: the groups.
        labels: int8 [N]; None if the items of every group are consecutive.
        first_items: int64, the first item of each group, ascending.
    """

    name: str
    groups: tuple[ItemGroup, ...]
    labels: np.ndarray | None = None
    first_items: np.ndarray | None = None

    def of(self, items: np.ndarray) -> np.ndarray:
        """Return the labels, int32 [n], of items int64 [n]."""
        if self.labels is not None:
            return self.labels[items].astype(np.int32)
        assert self.first_items is not None
        return np.searchsorted(self.first_items, items, side="right").astype(np.int32) - 1


@dataclass(frozen=True, kw_only=True)
class BlockGroups:
    """The groups of a block's b items, and of n targets.

    Attributes:
        of_items: int32 [G, b], labels.
        of_targets: int32 [n, G], labels.
    """

    of_items: np.ndarray
    of_targets: np.ndarray


class GroupedItems(SequenceArrays, Protocol):
    """What the groupings read from a dataset (`data.dataset.Dataset`)."""

    @property
    def domains(self) -> tuple[Domain, ...]: ...

    def popularity(self) -> np.ndarray: ...

    def cold_items(self) -> np.ndarray | None: ...


def labels_of(groupings: Sequence[Grouping], items: np.ndarray) -> np.ndarray:
    """Return the labels of items int64 [n] in each grouping: int32 [n, G]."""
    labels = np.empty((len(items), len(groupings)), dtype=np.int32)
    for number, grouping in enumerate(groupings):
        labels[:, number] = grouping.of(items)
    return labels


def groupings_of(data: GroupedItems, split: Split) -> tuple[Grouping, ...]:
    """Return the groupings that say something about the targets of a split.

    That is "domain" if there are several datasets, and "training" if items were held out of training or a target was
    never trained.
    """
    return (*domain_grouping(data), *_training_grouping(data, split))


def domain_grouping(data: GroupedItems) -> tuple[Grouping, ...]:
    """Return the grouping by dataset; none if there is one dataset."""
    domains = data.domains
    if len(domains) == 1:
        return ()
    groups = tuple(
        ItemGroup(
            name=domain.name,
            targets=f"target in {domain.name}",
            candidates=f"items of {domain.name}",
            size=domain.num_items,
        )
        for domain in domains
    )
    return (Grouping(name="domain", groups=groups, first_items=np.array([d.first_item for d in domains])),)


def _training_grouping(data: GroupedItems, split: Split) -> tuple[Grouping, ...]:
    """Return the grouping by training; none if no item is held out and no target was never trained.

    Memory: 1 byte an item, and 9 while it is made.
    """
    labels = np.where(data.popularity() > 0, np.int8(WARM), np.int8(NEVER_TRAINED))
    cold = data.cold_items()
    if cold is not None:
        labels[cold] = COLD
    elif not _any_target(data, split, labels == NEVER_TRAINED):
        return ()
    sizes = np.bincount(labels, minlength=3).tolist()
    groups = tuple(
        ItemGroup(name=name, targets=f"target {name}", candidates=candidates, size=sizes[label])
        for label, (name, candidates) in enumerate(
            [("warm", "warm items"), ("cold", "cold items"), ("never trained", "items that were never trained")]
        )
    )
    return (Grouping(name="training", groups=groups, labels=labels),)


def _any_target(data: SequenceArrays, split: Split, wanted: np.ndarray) -> bool:
    """Return whether any target of the split is a wanted item, bool [N]."""
    targets = Targets(data, split)
    for first in range(0, len(targets), _BLOCK):
        users, positions = targets.locate(np.arange(first, min(first + _BLOCK, len(targets))))
        if wanted[target_items(data, users, positions)].any():
            return True
    return False

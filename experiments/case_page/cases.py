"""The content of a case page: items with the items related to them, and users with each channel's best items.

The content is built here from plain arrays; page.py turns it into HTML. Shapes: L entries of a list of related items,
K places of a ranking, C channels, V = C + 1 rankings of a user (by all channels together, then by each channel alone).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.case_page.relations import Lists, Overlap, jaccard
from model.protocol import Channel

SHOWN_HISTORY = 20
SHOWN_ALONE = 5


@dataclass(frozen=True)
class Item:
    """An item's source id, and its text; None if the dataset has no text for the item."""

    id: str
    text: str | None


@dataclass(frozen=True)
class Relative:
    """A related item: its cosine or weight, and the names of the other relations whose lists also hold it."""

    item: Item
    value: float
    also_by: tuple[str, ...]


@dataclass(frozen=True)
class RelationList:
    """The items that are related to one item by one relation; `is_lacking`: the item lacks that modality."""

    name: str
    relatives: tuple[Relative, ...]
    is_lacking: bool


@dataclass(frozen=True)
class ItemCase:
    """An item, its number of interactions in training, and its lists of related items."""

    item: Item
    popularity: int
    lists: tuple[RelationList, ...]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An item in a user's ranking.

    Attributes:
        item: the item.
        rank: place in the ranking, from 1; by the whole score, or by one channel in that channel's ranking.
        parts: each channel's part of the score; their sum is the score.
        is_next: whether the item is the target, the one that the user bought next.
        is_old: whether the item is in the user's history.
    """

    item: Item
    rank: int
    parts: tuple[float, ...]
    is_next: bool
    is_old: bool

    @property
    def score(self) -> float:
        return sum(self.parts)


@dataclass(frozen=True, kw_only=True)
class UserCase:
    """A user at the moment of a purchase, the target.

    Attributes:
        user: source id.
        history: the last `SHOWN_HISTORY` items before the target, oldest first.
        num_earlier: the number of items before those in `history`.
        next_offer: the target, with its rank among all items.
        best: the items with the highest whole scores, best first.
        alone: for each channel, the items with the highest scores in that channel alone.
        alone_ranks: for each channel, the rank of the target by that channel alone.
    """

    user: str
    history: tuple[Item, ...]
    num_earlier: int
    next_offer: Offer
    best: tuple[Offer, ...]
    alone: tuple[tuple[Offer, ...], ...]
    alone_ranks: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CaseStudy:
    """The content of a page.

    Attributes:
        model: name of the model.
        run: the run's folder.
        step: the checkpoint's step; None for a model that has no checkpoints.
        num_items: items of the dataset.
        num_users: users of the dataset.
        channels: the channels; each is a part of the score.
        relations: names of the relations; empty for a model without an item graph.
        length: L, the most entries in a list of related items.
        mu: weight of co-occurrence in the graph's injected features.
        overlaps: how much the lists of each two relations share.
        items: the items shown.
        item_rule: a sentence that says how the items were chosen.
        users: the users shown.
        user_rule: a sentence that says how the users were chosen.
        hides_history: whether items in a user's history are left out of the user's rankings.
    """

    model: str
    run: str
    step: int | None
    num_items: int
    num_users: int
    channels: tuple[Channel, ...]
    relations: tuple[str, ...]
    length: int
    mu: float
    overlaps: tuple[Overlap, ...]
    items: tuple[ItemCase, ...]
    item_rule: str
    users: tuple[UserCase, ...]
    user_rule: str
    hides_history: bool


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The V rankings of B users.

    Attributes:
        users: int64 [B].
        positions: int64 [B], positions of the targets in the users' sequences.
        targets: int64 [B], the items at these positions.
        ranks: int64 [V, B], ranks of the targets.
        best: int64 [V, B, K], ids of the best items, best first; -1 if there are fewer than K.
        best_parts: float64 [V, B, K, C], the channels' parts of the whole scores of `best`.
        target_parts: float64 [B, C], the channels' parts of the targets' scores.
    """

    users: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray
    best: np.ndarray
    best_parts: np.ndarray
    target_parts: np.ndarray


def item_case(
    row: int, item: Item, popularity: int, lists: dict[str, Lists], lacking: set[str], name: Callable[[int], Item]
) -> ItemCase:
    """Return the content for one item: row `row` of every relation's lists.

    Args:
        row: the item's row in the lists.
        item: the item.
        popularity: the item's number of interactions in training.
        lists: the lists of each relation.
        lacking: the relations whose modality the item lacks.
        name: gives the `Item` of an item id.
    """
    ids = {relation: [int(i) for i in found.ids[row] if i >= 0] for relation, found in lists.items()}
    shown = []
    for relation, found in lists.items():
        relatives = tuple(
            Relative(name(i), float(value), tuple(o for o in lists if o != relation and i in ids[o]))
            for i, value in zip(ids[relation], found.values[row], strict=False)
        )
        shown.append(RelationList(relation, relatives, relation in lacking))
    return ItemCase(item, popularity, tuple(shown))


def user_case(row: int, user: str, ranking: Ranking, history: Sequence[int], name: Callable[[int], Item]) -> UserCase:
    """Return the content for one user: row `row` of a ranking.

    Args:
        row: the user's row in the ranking.
        user: the user's source id.
        ranking: the rankings of all users.
        history: ids of the items before the target, oldest first.
        name: gives the `Item` of an item id.
    """
    target, seen = int(ranking.targets[row]), set(history)

    def offer(item: int, rank: int, parts: np.ndarray) -> Offer:
        return Offer(
            item=name(item), rank=rank, parts=tuple(map(float, parts)), is_next=item == target, is_old=item in seen
        )

    views = [
        tuple(offer(int(i), rank + 1, parts[rank]) for rank, i in enumerate(ids) if i >= 0)
        for ids, parts in zip(ranking.best[:, row], ranking.best_parts[:, row], strict=True)
    ]
    recent = history[-SHOWN_HISTORY:]
    return UserCase(
        user=user,
        history=tuple(map(name, recent)),
        num_earlier=len(history) - len(recent),
        next_offer=offer(target, int(ranking.ranks[0, row]), ranking.target_parts[row]),
        best=views[0],
        alone=tuple(view[:SHOWN_ALONE] for view in views[1:]),
        alone_ranks=tuple(map(int, ranking.ranks[1:, row])),
    )


def most_divided(best: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` rows whose channels agree least: their best `SHOWN_ALONE` items overlap least on average.

    Of rows with equal overlap, the first ones are returned.

    Args:
        best: int64 [V, B, K], as in `Ranking`.
        count: the most rows to return.
    """
    alone = best[1:, :, :SHOWN_ALONE]
    pairs = [(a, b) for a in range(len(alone)) for b in range(a)]
    if not pairs:
        return np.arange(best.shape[1])[:count]
    shared = np.mean([jaccard(alone[a], alone[b]) for a, b in pairs], axis=0)
    return np.argsort(shared, kind="stable")[:count]

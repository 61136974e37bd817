"""What a page of cases says: items with their relatives by each relation, users with what each channel offers them.

Built here from plain arrays; `case_page` turns it into HTML. L places of a list, K places of a ranking, V views of a
user: all channels together, then each alone, C = V - 1.
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
    """An item as a person knows it: its source id, and its text where the source has one."""

    id: str
    text: str | None


@dataclass(frozen=True)
class Relative:
    """An entry of a relation's list: its cosine or weight, and by which other relations it is in a list too."""

    item: Item
    value: float
    also_by: tuple[str, ...]


@dataclass(frozen=True)
class RelationList:
    """An item's relatives by one relation; `is_lacking`: the item lacks that modality."""

    name: str
    relatives: tuple[Relative, ...]
    is_lacking: bool


@dataclass(frozen=True)
class ItemCase:
    """An item, how often it was bought in training, and its lists."""

    item: Item
    popularity: int
    lists: tuple[RelationList, ...]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An item in a user's ranking.

    Attributes:
        rank: 1-based, by the score of all channels or of the one that it stands under.
        parts: each channel's part of the score; their sum is the score.
        is_next: the user really bought it next. is_old: it is in the user's history.
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
    """A user at the moment of a purchase.

    Attributes:
        user: source id.
        history: the last `SHOWN_HISTORY` items before it, oldest first; `num_earlier` more lie before them.
        next_offer: what was really bought, with its rank among all items.
        best: the best of all channels together, best first.
        alone: per channel its own best. alone_ranks: per channel the rank of what was really bought.
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
    """A page.

    Attributes:
        model, run, step: what is shown; the step is None for a model that has no checkpoints.
        num_items, num_users: of the catalogue.
        channels: the parts of a score.
        relations: names; empty for a model without an item graph.
        length: L. mu: how much behaviour is injected into features.
        item_rule, user_rule: sentences that say how the cases were chosen.
        hides_history: whether what a user has bought before is left out of rankings.
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
    """What B users are offered in V views.

    Attributes:
        users, positions, targets: int64 [B], whose next item is ranked, where in the sequence, and which it is.
        ranks: int64 [V, B], of the targets.
        best: int64 [V, B, K], item ids, best first, -1 where there are fewer.
        best_parts: float64 [V, B, K, C], the channels' parts of the full scores of `best`.
        target_parts: float64 [B, C].
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
    """Row `row` of every relation's lists, each entry with the other lists that it is in."""
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
    """Row `row` of a ranking, for a user with this history (item ids, oldest first)."""
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
    """The rows [count] whose channels' own top `SHOWN_ALONE` lists share least on average; of equal ones the first.

    Args:
        best: int64 [V, B, K], as in `Ranking`.
    """
    alone = best[1:, :, :SHOWN_ALONE]
    pairs = [(a, b) for a in range(len(alone)) for b in range(a)]
    if not pairs:
        return np.arange(best.shape[1])[:count]
    shared = np.mean([jaccard(alone[a], alone[b]) for a, b in pairs], axis=0)
    return np.argsort(shared, kind="stable")[:count]

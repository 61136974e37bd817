"""How items are related by each modality and by co-occurrence: lists, how much they share, whom to show.

Shapes: N items, n items of a block, L places of a list. Memory: a block of lists and of co-occurrence rows, and 12
bytes an item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from graph_builder.store import Graph
from kernels.cooccurrence.pair_counts import strongest

COOCCURRENCE = "bought together"  # no modality's name has a space
_COMPARISONS = 1 << 18  # pairs of entries of two lists looked at at once


@dataclass(frozen=True)
class Lists:
    """The strongest relatives of n items: ids int64 [n, L], best first, -1 where there are fewer; values float32."""

    ids: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What the lists of two relations share, on average over the `num_items` items that have both."""

    first: str
    second: str
    jaccard: float
    num_items: int


class Relations:
    """Each item's relatives in a graph, itself left out.

    Attributes:
        names: the modalities, then `COOCCURRENCE`.
        length: L, of every list: the neighbours that the graph holds beside the item itself.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names = (*graph.modalities, COOCCURRENCE)
        parameters = graph.manifest["parameters"]
        self.length = max(1, int(parameters["num_neighbors"]) - bool(parameters.get("include_self", True)))

    def lists(self, items: np.ndarray) -> dict[str, Lists]:
        """By relation, the lists of items int64 [n]; all -1 where an item lacks the modality."""
        found = {m: self._neighbors(m, items) for m in self.graph.modalities}
        return {**found, COOCCURRENCE: self._bought_together(items)}

    def lacking(self, name: str, items: np.ndarray) -> np.ndarray:
        """Which items lack the modality, bool [n]."""
        if name == COOCCURRENCE:
            return np.zeros(len(items), dtype=bool)
        return np.asarray(self.graph.clusters(name)[items]) < 0

    def _neighbors(self, modality: str, items: np.ndarray) -> Lists:
        ids = np.array(self.graph.neighbors(modality)[items])
        values = np.array(self.graph.neighbor_scores(modality)[items])
        ids[(ids == items[:, None]) | self.lacking(modality, items)[:, None]] = -1
        order = np.argsort(ids < 0, axis=1, kind="stable")[:, : self.length]
        return Lists(np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1))

    def _bought_together(self, items: np.ndarray) -> Lists:
        """The L largest weights of O's rows; of equal ones the smallest ids."""
        indptr, others, weights = self.graph.cooccurrence_rows(items)
        lengths, kept = strongest(np.diff(indptr), weights, self.length)
        others, weights = others[kept], weights[kept]
        rows = np.repeat(np.arange(len(items)), lengths)
        order = np.lexsort((others, -weights, rows))
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids = np.full((len(items), self.length), -1, dtype=np.int64)
        values = np.zeros(ids.shape, dtype=np.float32)
        ids[rows, columns], values[rows, columns] = others[order], weights[order]
        return Lists(ids, values)


def jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|A and B| / |A or B| of the ids in each row, float64 [n]; NaN where a row of either has none.

    Args:
        first, second: int64 [n, *], no id twice in a row, padded with -1.
    """
    shared = ((first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]).sum((1, 2))
    sizes = (first >= 0).sum(1), (second >= 0).sum(1)
    either = sizes[0] + sizes[1] - shared
    return np.where((sizes[0] > 0) & (sizes[1] > 0), shared / np.maximum(either, 1), np.nan)


def survey(
    relations: Relations, track: Callable[[Iterable[int], int, str], Iterable[int]]
) -> tuple[list[Overlap], np.ndarray]:
    """What each pair of relations shares over the whole catalogue; and the mean over pairs of each item, float32 [N].

    An item's mean is NaN where one of its lists is empty. `track` shows how far the loop over blocks is.
    """
    num_items, pairs = relations.graph.num_items, list(combinations(relations.names, 2))
    rows = max(1, _COMPARISONS // relations.length**2)
    sums, counts = np.zeros(len(pairs)), np.zeros(len(pairs), dtype=np.int64)
    means = np.full(num_items, np.nan, dtype=np.float32)
    starts = range(0, num_items, rows)
    for start in track(starts, len(starts), "comparing lists"):
        items = np.arange(start, min(start + rows, num_items))
        lists = relations.lists(items)
        shares = np.stack([jaccard(lists[a].ids, lists[b].ids) for a, b in pairs])
        sums += np.nansum(shares, axis=1)
        counts += np.isfinite(shares).sum(axis=1)
        means[items] = shares.mean(axis=0)
    found = zip(pairs, sums.tolist(), counts.tolist(), strict=True)
    return [
        Overlap(first=a, second=b, jaccard=total / max(count, 1), num_items=count) for (a, b), total, count in found
    ], means


def pick_items(means: np.ndarray, popularity: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, int]:
    """Known items whose lists share least, and how often at least each of them was bought in training.

    Of the items that have a list by every relation, the most bought quarter; of those, the ones with the lowest mean
    overlap; of equal ones any, by `seed`.

    Args:
        means: float [N], as `survey` gives them. popularity: int64 [N].
    """
    able = np.flatnonzero(np.isfinite(means))
    if not len(able):
        return able, 0
    least = int(np.quantile(popularity[able], 0.75, method="higher"))
    known = able[popularity[able] >= least]
    lot = np.random.default_rng(seed).permutation(len(known))
    return known[np.lexsort((lot, means[known]))[:count]], least

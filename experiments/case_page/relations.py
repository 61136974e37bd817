"""Lists of items that are related by each modality and by co-occurrence, and how much these lists overlap.

Shapes: N items, n items of a block, L entries of a list. Memory: one block of lists and of co-occurrence rows, and 12
bytes per item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from distributed.inference.channel_parts import COOCCURRENCE
from graph_builder.joined import RunGraph
from kernels.cooccurrence.pair_counts import strongest

_COMPARISONS = 1 << 18  # pairs of entries of two lists that are compared at a time


@dataclass(frozen=True)
class Lists:
    """The L items most related to each of n items.

    Attributes:
        ids: int64 [n, L], best first; -1 if there are fewer than L.
        values: float32 [n, L], cosines or weights.
    """

    ids: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The Jaccard overlap of the lists of two relations, averaged over the `num_items` items that have both lists."""

    first: str
    second: str
    jaccard: float
    num_items: int


class Relations:
    """The lists of related items in a graph. No list holds the item itself.

    Attributes:
        graph: the graph.
        names: the modalities, then `COOCCURRENCE`.
        length: L, the length of every list: the graph's neighbours per item, without the item itself.
    """

    def __init__(self, graph: RunGraph) -> None:
        self.graph = graph
        self.names = (*graph.modalities, COOCCURRENCE)
        parameters = graph.parameters
        self.length = max(1, int(parameters["num_neighbors"]) - bool(parameters.get("include_self", True)))

    def lists(self, items: np.ndarray) -> dict[str, Lists]:
        """Return, for each relation, the lists of items int64 [n]. A list is all -1 if the item lacks the modality."""
        found = {m: self._neighbors(m, items) for m in self.graph.modalities}
        return {**found, COOCCURRENCE: self._bought_together(items)}

    def lacking(self, name: str, items: np.ndarray) -> np.ndarray:
        """Return whether each of the items int64 [n] lacks the modality, bool [n]."""
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
        """Return the L entries with the largest weights in the items' rows of O; ties go to the smallest ids."""
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
    """Compute the Jaccard overlap of two sets of ids in each row: |A and B| / |A or B|.

    Args:
        first: int64 [n, *], no id twice in a row, padded with -1.
        second: the same, for the other sets.

    Returns:
        float64 [n]; NaN if either set is empty.
    """
    shared = ((first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]).sum((1, 2))
    sizes = (first >= 0).sum(1), (second >= 0).sum(1)
    either = sizes[0] + sizes[1] - shared
    return np.where((sizes[0] > 0) & (sizes[1] > 0), shared / np.maximum(either, 1), np.nan)


def survey(
    relations: Relations, track: Callable[[Iterable[int], int, str], Iterable[int]]
) -> tuple[list[Overlap], np.ndarray]:
    """Compute how much the lists of each two relations overlap, over the whole catalogue.

    Args:
        relations: the lists.
        track: shows the progress of the loop over blocks.

    Returns:
        The overlap of each pair of relations; and each item's mean over the pairs, float32 [N], NaN if one of the
        item's lists is empty.
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
    """Choose popular items whose lists overlap least.

    Of the items that have a list for every relation, take the most popular quarter. Of these, choose the ones with the
    lowest mean overlap. Ties are broken at random.

    Args:
        means: float [N], each item's mean overlap, as returned by `survey`.
        popularity: int64 [N], interactions in training.
        count: the most items to choose.
        seed: of the random order of ties.

    Returns:
        The items, int64; and the popularity that the quarter starts at, 0 without items.
    """
    able = np.flatnonzero(np.isfinite(means))
    if not len(able):
        return able, 0
    least = int(np.quantile(popularity[able], 0.75, method="higher"))
    known = able[popularity[able] >= least]
    lot = np.random.default_rng(seed).permutation(len(known))
    return known[np.lexsort((lot, means[known]))[:count]], least

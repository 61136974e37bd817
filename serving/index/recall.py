"""Measures an index: which share of the exact best items a search finds, and how long a query takes.

B: queries, K: length of the lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serving.index.search import VectorIndex


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """A measured search.

    Attributes:
        effort: efSearch or nprobe (`kinds.search_effort`); None: the default.
        recall: by length of the list, the share of the exact list's items that the search's list of this length has.
        ms_per_query: milliseconds of a query; all queries are searched in one call.
        ms_alone: the median of the milliseconds of queries that are searched one at a time.
    """

    effort: int | None
    recall: dict[int, float]
    ms_per_query: float
    ms_alone: float


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the share of the exact lists' items that are found, over all queries; -1 stands for no item.

    Args:
        found: item ids int64 [B, K].
        exact: item ids int64 [B, K].
    """
    keys, wanted = (_keys(ids, max(int(found.max()), int(exact.max())) + 1) for ids in (found, exact))
    return float(np.isin(wanted, keys).mean()) if len(wanted) else 1.0


def _keys(ids: np.ndarray, num_items: int) -> np.ndarray:
    """Return one number for each query and item."""
    rows, places = np.nonzero(ids >= 0)
    return rows * num_items + ids[rows, places]


def measure(
    index: VectorIndex,
    queries: np.ndarray,
    exact: np.ndarray,
    *,
    lengths: tuple[int, ...],
    effort: int | None = None,
    alone: int = 32,
    clock: Callable[[], float] = time.perf_counter,
) -> SearchPoint:
    """Search an index and compare its lists with the exact ones.

    Args:
        index: the index.
        queries: float32 [B, D].
        exact: the exact lists, item ids int64 [B, K], best first.
        lengths: the lengths of lists whose recall is wanted, at most K each. The greatest is the depth of the search.
        effort: how thoroughly an approximate index searches; None: its default.
        alone: how many queries are also searched one at a time.
        clock: returns seconds; that of the processor is steadier where other programs run.
    """
    depth = max(lengths)
    index.search(queries[:1], depth, effort=effort)  # reads the files
    start = clock()
    ids, _ = index.search(queries, depth, effort=effort)
    seconds = clock() - start
    return SearchPoint(
        effort=effort,
        recall={length: recall(ids[:, :length], exact[:, :length]) for length in lengths},
        ms_per_query=1e3 * seconds / len(queries),
        ms_alone=median_ms(
            lambda at: index.search(queries[at : at + 1], depth, effort=effort), min(alone, len(ids)), clock
        ),
    )


def median_ms(work: Callable[[int], object], count: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median of the milliseconds that `work(0)` .. `work(count - 1)` take."""
    milliseconds = []
    for at in range(count):
        start = clock()
        work(at)
        milliseconds.append(1e3 * (clock() - start))
    return float(np.median(milliseconds))

"""How training interactions are spread over items."""

from __future__ import annotations

import numpy as np

from experiments.inspection.counting import spread_of
from experiments.inspection.facts import PopularityFacts

_CURVE_POINTS = 80


def popularity_facts(popularity: np.ndarray) -> PopularityFacts:
    """Return the facts about the training interactions of the items, int64 [N]. Memory: a copy of them."""
    ascending = np.sort(popularity)
    num_items, total = len(ascending), int(ascending.sum())
    num_top = max(1, num_items // 100)
    # Points at equal distances in a picture with logarithmic axes.
    ranks = np.unique(np.geomspace(1, num_items, _CURVE_POINTS).round().astype(np.int64))
    return PopularityFacts(
        counts=spread_of(ascending),
        gini=_gini(ascending, total),
        num_top=num_top,
        top_share=int(ascending[-num_top:].sum()) / total if total else 0.0,
        num_training=total,
        num_untrained=int(np.searchsorted(ascending, 1)),
        curve=tuple((int(rank), int(ascending[-rank])) for rank in ranks),
    )


def _gini(ascending: np.ndarray, total: int) -> float:
    """Return sum_ij |x_i - x_j| / (2 N^2 mean), which for ascending x_1..x_N is 2 sum_i i x_i / (N sum x) - (N+1)/N."""
    if not total:
        return 0.0
    num = len(ascending)
    weighted = float(np.arange(1, num + 1, dtype=np.float64) @ ascending)
    return 2 * weighted / (num * total) - (num + 1) / num

"""What a pair of a user and an item scores beyond the inner product of their vectors: pairs, never users x items.

Three things, all read from sequences and the item graph while ranking:
    an item that the user's input holds gains what the model has learned of repeats (`model/blocks/repeats.py`);
    any other gains `evaluation.cooccurrence_weight` * sum_t decay^t O[x_t, item] over the input, x_0 its latest item:
        item-based nearest neighbours (ItemKNN) over the paper's own O, which an inner product of d numbers cannot
        remember. The loss does not know it: O counts the training targets themselves, so trained with it a model
        would learn to trust O alone; with those left out it ranks worse than added afterwards (docs/log.md);
    where histories are hidden, their items gain -inf, but for targets.

B: users, n: pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from configs.schema import EvaluationConfig
from contracts.graph_rows import GraphRows
from data.ragged import ragged_indices
from data.sequences import SequenceArrays
from kernels.cooccurrence.pair_counts import strongest


@dataclass(kw_only=True)
class GainRates:
    """How much each of B users gains: float32 [B] each, in their order.

    Attributes:
        repeats: of an item in the input.
        cooccurrence: of a unit of co-occurrence with the latest item.
    """

    repeats: np.ndarray
    cooccurrence: np.ndarray


@dataclass(kw_only=True)
class ScoreGains:
    """Finds the pairs of a batch of users; `graph` is None where co-occurrence is not asked for."""

    data: SequenceArrays
    graph: GraphRows | None
    max_length: int
    options: EvaluationConfig

    def pairs(
        self, users: np.ndarray, positions: np.ndarray, targets: np.ndarray, hide: bool, rates: GainRates
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items int64 [n], rows of the batch int64 [n] and gains float32 [n]; a pair may be there more than once, and
        its least gain is meant.

        Args:
            users, positions, targets: int64 [B]; what is before a position is the history, its end the input.
            hide: whether items of histories are hidden.
        """
        rows, places, items = self._before(users, positions, np.minimum(positions, self.max_length))
        found = []
        if rates.repeats.any():
            found.append((items, rows, rates.repeats[rows]))
        if rates.cooccurrence.any() and self.graph is not None:
            ages = positions[rows] - 1 - places
            weights = rates.cooccurrence[rows] * self.options.cooccurrence_decay ** ages.astype(np.float64)
            found.append(self._related(items, rows, weights, len(users)))
        if hide:
            rows, _, items = self._before(users, positions, positions)
            other = items != targets[rows]
            found.append((items[other], rows[other], np.full(int(other.sum()), -np.inf, dtype=np.float32)))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        items, rows, gains = (np.concatenate(part) for part in zip(*found, strict=True))
        return items, rows, gains.astype(np.float32)

    def _before(
        self, users: np.ndarray, positions: np.ndarray, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, places in the sequence, and items, int64 [n] each, of the last `sizes` items before each position."""
        rows = np.repeat(np.arange(len(users)), sizes)
        places = ragged_indices(positions - sizes, sizes)
        return rows, places, np.asarray(self.data.items[self.data.offsets[users][rows] + places], dtype=np.int64)

    def _related(
        self, items: np.ndarray, rows: np.ndarray, weights: np.ndarray, num_rows: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """sum over a row's items x of weight_x * O[x, i], for every i that is not one of them, each pair once.

        Added in float64 from a row's oldest item on, so that it rounds alike wherever it is made.
        """
        distinct, place = np.unique(items, return_inverse=True)
        offsets, others, values = self._strongest_rows(distinct)
        starts = np.searchsorted(rows, np.arange(num_rows + 1))
        inputs = csr_array((weights, place, starts), shape=(num_rows, len(distinct)))
        sums = inputs @ csr_array((values, others, offsets), shape=(len(distinct), self.data.num_items))
        related, users, gains = _by_item(sums)
        # The inputs' own items gain nothing here: few, looked up among many.
        keys, held = related * num_rows + users, items * num_rows + rows
        place = np.minimum(np.searchsorted(keys, held), max(len(keys) - 1, 0))
        other = np.ones(len(keys), dtype=bool)
        other[place[keys[place] == held] if len(keys) else place[:0]] = False
        return related[other], users[other], gains[other].astype(np.float32)

    def _strongest_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The items' rows of O, cut to the strongest entries: offsets int64 [m+1], items int64, values float32."""
        assert self.graph is not None
        offsets, others, values = self.graph.cooccurrence_rows(items)
        cap = self.options.cooccurrence_cap
        if cap is not None and np.diff(offsets).max(initial=0) > cap:
            lengths, kept = strongest(np.diff(offsets), values, cap)
            offsets, others, values = np.concatenate([[0], np.cumsum(lengths)]), others[kept], values[kept]
        return offsets, np.asarray(others, dtype=np.int64), values


def _by_item(matrix: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns int64, rows int64 and values of the entries, by column and then by row."""
    num_rows, num_columns = matrix.shape
    if num_columns <= 16 * matrix.nnz:  # counted, not sorted: but that takes memory by the number of columns
        by_column = matrix.tocsc()
        columns = np.repeat(np.arange(num_columns), np.diff(by_column.indptr))
        return columns, by_column.indices.astype(np.int64), by_column.data
    rows, columns = np.repeat(np.arange(num_rows), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)
    order = np.argsort(columns * num_rows + rows)
    return columns[order], rows[order], matrix.data[order]

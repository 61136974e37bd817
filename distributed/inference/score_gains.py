"""Computes gains: numbers that are added to the scores of some pairs of a user and an item.

Gains are computed while ranking, from sequences and the item graph, for pairs that have one and never for all users x
items. There are three:

- repeats: an item in the user's input gains what the model has learned for repeats (`model/blocks/repeats.py`);
- co-occurrence: any other item gains `evaluation.cooccurrence_weight` * sum_t decay^t O[x_t, item], where x_0 is the
  latest item of the input. This is ItemKNN with the paper's O, which an inner product of d numbers cannot represent;
- hidden histories: if histories are hidden, their items gain -inf, except the target.

The training loss does not include co-occurrence. O counts the training targets themselves, so a model that was
trained with it would learn to rely on O alone. Training with the targets left out of O ranks worse than adding the
gain after training (docs/log.md).

Shapes: B users, n pairs.
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
    """The gains of each of B users, in the users' order.

    Attributes:
        repeats: float32 [B], the gain of an item in the user's input.
        cooccurrence: float32 [B], the gain per unit of co-occurrence with the latest item of the user's input.
    """

    repeats: np.ndarray
    cooccurrence: np.ndarray


@dataclass(kw_only=True)
class ScoreGains:
    """Computes the gains of a batch of users.

    Attributes:
        data: the users' sequences.
        graph: the rows of O; None if the gain of co-occurrence is not used.
        max_length: number of items in a user's input.
        options: the settings of evaluation.
    """

    data: SequenceArrays
    graph: GraphRows | None
    max_length: int
    options: EvaluationConfig

    def pairs(
        self, users: np.ndarray, positions: np.ndarray, targets: np.ndarray, hide: bool, rates: GainRates
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pairs that have a gain. If a pair occurs more than once, its least gain counts.

        Args:
            users: int64 [B].
            positions: int64 [B], the place of each user's target. The items before it are the history, whose latest
                `max_length` items are the input.
            targets: item ids int64 [B].
            hide: whether items of histories are hidden.
            rates: the gains of each user.

        Returns:
            Item ids int64 [n], rows of the batch int64 [n] and gains float32 [n].
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
        """Return the last `sizes` items before each position: rows, places in the sequence, ids, int64 [n] each."""
        rows = np.repeat(np.arange(len(users)), sizes)
        places = ragged_indices(positions - sizes, sizes)
        return rows, places, np.asarray(self.data.items[self.data.offsets[users][rows] + places], dtype=np.int64)

    def _related(
        self, items: np.ndarray, rows: np.ndarray, weights: np.ndarray, num_rows: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the gains of co-occurrence: the sum over a row's items x of weight_x * O[x, i], each pair once.

        Items i that are among the row's items are left out. Sums are computed in float64, beginning with a row's
        oldest item, so that they round alike on every rank.
        """
        distinct, place = np.unique(items, return_inverse=True)
        offsets, others, values = self._strongest_rows(distinct)
        starts = np.searchsorted(rows, np.arange(num_rows + 1))
        inputs = csr_array((weights, place, starts), shape=(num_rows, len(distinct)))
        sums = inputs @ csr_array((values, others, offsets), shape=(len(distinct), self.data.num_items))
        related, users, gains = _by_item(sums)
        # Remove the items of the inputs. They are few, so they are searched for among the many pairs.
        keys, held = related * num_rows + users, items * num_rows + rows
        place = np.minimum(np.searchsorted(keys, held), max(len(keys) - 1, 0))
        other = np.ones(len(keys), dtype=bool)
        other[place[keys[place] == held] if len(keys) else place[:0]] = False
        return related[other], users[other], gains[other].astype(np.float32)

    def _strongest_rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the items' rows of O, cut to their greatest entries: offsets int64 [m+1], items int64, float32."""
        assert self.graph is not None
        offsets, others, values = self.graph.cooccurrence_rows(items)
        cap = self.options.cooccurrence_cap
        if cap is not None and np.diff(offsets).max(initial=0) > cap:
            lengths, kept = strongest(np.diff(offsets), values, cap)
            offsets, others, values = np.concatenate([[0], np.cumsum(lengths)]), others[kept], values[kept]
        return offsets, np.asarray(others, dtype=np.int64), values


def _by_item(matrix: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the entries' columns int64, rows int64 and values, ordered by column and then by row."""
    num_rows, num_columns = matrix.shape
    # A counting sort is faster, but its memory grows with the number of columns.
    if num_columns <= 16 * matrix.nnz:
        by_column = matrix.tocsc()
        columns = np.repeat(np.arange(num_columns), np.diff(by_column.indptr))
        return columns, by_column.indices.astype(np.int64), by_column.data
    rows, columns = np.repeat(np.arange(num_rows), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)
    order = np.argsort(columns * num_rows + rows)
    return columns[order], rows[order], matrix.data[order]

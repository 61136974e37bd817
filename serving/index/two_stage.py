"""Lists of the best items in two stages: candidates from an index, scored anew with the exact rule.

A user's candidates are the items that the index finds, and all items that have a gain for the user: those of the input,
those that co-occur with it, and hidden ones. The index does not know gains, so it is asked for as many more items as
the user has items with a gain below 0, and for a margin.

**When a list equals that of the exact ranking** (`evaluation.ranking.top_items`). The index must be flat, and hold the
vectors that `items` gives. Let s be the score of the K-th candidate, as the ranking computes it, and let b be at least
the score of every item that is no candidate. If s > b, no such item is in the exact list, not even by a tie. Candidates
are ordered as the ranking orders them, by score and then id. So the lists are equal. What is b?

- Inner products: an item that is no candidate has no gain, so its score is its inner product, and the index put it
  behind its last found item. The ranking and the index round differently, each by at most e
  (`bounds.inner_product_error`). So b = (score of the last found item) + 2 e.
- A fusion: each channel is searched by itself, and an item that is no candidate is behind the last found item of every
  channel. `bounds.fused_bound` makes b of these scores, + 2 e each.

Nothing is assumed about gains, which may be negative: s is computed with them. If s <= b, the index is searched for
twice as many items, until the list is proven. A user for whom that would be a large share of the catalogue is ranked
exactly instead, which is cheaper. Items that tie with the K-th cannot be proven outside while b equals s, so a large
tie ends there too.

Candidates' scores may be computed alone (`vectors_of`), which is much faster than repeating the ranking's products.
They then differ from the ranking's by at most some d (2 e for inner products, `bounds.fused_error` for a fusion). So
s - d > b is required, and neighbours of the list whose scores differ by 2 d or less are ambiguous. Candidates of a user
with ambiguous neighbours, or with only s > b, are scored again with the ranking's own products.

n: users, K: length of a list, N: items, p: pairs of a user and a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contracts.errors import InputError
from evaluation.item_blocks import ItemBlocks
from evaluation.ranking import top_items
from evaluation.user_batches import UserBatch
from model.blocks.score_fusion import ScoreFusion
from serving.index.bounds import fused_bound, fused_error, inner_product_error, sum_error
from serving.index.rescoring import GainPairs, VectorsOf, gathered, same_digits
from serving.index.search import VectorIndex


@dataclass(kw_only=True)
class Lists:
    """The best items of users.

    Attributes:
        ids: int64 [n, K], by score descending, then id ascending; -1: no item.
        scores: float32 [n, K]; -inf without an item. Where candidates were scored alone, the last digits may differ
            from those of the exact ranking.
        proven: bool [n], whether `ids` is proven equal to the exact ranking.
        depths: int64 [n], how many items the index was last searched for; N for a user who was ranked exactly.
    """

    ids: np.ndarray
    scores: np.ndarray
    proven: np.ndarray
    depths: np.ndarray


class TwoStages:
    """Finds the best items of users by an index and exact scores of its candidates, in one process."""

    def __init__(
        self,
        *,
        index: VectorIndex,
        items: ItemBlocks,
        fusion: ScoreFusion | None = None,
        vectors_of: VectorsOf | None = None,
        margin: int = 16,
        effort: int | None = None,
        prove: bool = True,
        deepest_share: float = 0.25,
    ) -> None:
        """Make the two stages.

        Args:
            index: finds candidates. With a fusion, it must have a part for each channel, else one part.
            items: all items, in one process; computes exact scores.
            fusion: the model's fusion; None: scores are inner products.
            vectors_of: returns item vectors, to score candidates alone; None: candidates are scored with the products
                of the exact ranking, to the same digits.
            margin: how many candidates are asked for beyond those that a list needs.
            effort: how thoroughly an approximate index searches; None: its default.
            prove: whether lists that are not proven are searched for deeper and at last ranked exactly. An approximate
                index proves nothing, so that it is searched once in any case.
            deepest_share: a search for more than this share of all items is replaced by the exact ranking.

        Raises:
            InputError: the index is of other items, or its parts are not the channels.
        """
        manifest = index.manifest
        if manifest.num_items != items.num_items:
            raise InputError(
                f"index {index.folder}: holds {manifest.num_items} items, the model ranks {items.num_items}; build an "
                "index of this run"
            )
        if (fusion is None) != (items.pair_scores is None):
            raise ValueError("name the fusion that `items` scores with")
        if fusion is None and len(manifest.widths) != 1:
            raise InputError(
                f"index {index.folder}: has {len(manifest.widths)} parts, but the model's score is one inner product; "
                "build the index with one part"
            )
        self._index, self._items, self._fusion, self._vectors_of = index, items, fusion, vectors_of
        self._margin, self._effort, self._deepest = margin, effort, min(deepest_share, 1.0) * items.num_items
        self._proves = prove and index.is_exact

    def top(self, users: Sequence[UserBatch], k: int) -> Lists:
        """Return the K = min(k, N) best items of all users of the batches.

        Args:
            users: the batches, with the gains of all their pairs.
            k: length of the lists.

        Raises:
            InputError: the index holds other vectors than `items`, or is damaged.
            FloatingPointError: a score is not finite.
        """
        k, n = min(k, self._items.num_items), sum(map(len, users))
        lists = Lists(
            ids=np.full((n, k), -1, dtype=np.int64),
            scores=np.full((n, k), -np.inf, dtype=np.float32),
            proven=np.zeros(n, dtype=bool),
            depths=np.zeros(n, dtype=np.int64),
        )
        vectors = torch.cat([batch.vectors for batch in users]).cpu().numpy()
        pairs = GainPairs.of(users)
        open_rows, deeper = np.arange(n), 1
        while len(open_rows):
            wanted = (k + pairs.lowered[open_rows] + self._margin) * deeper
            is_shallow = (wanted <= self._deepest) | ~np.bool_(self._proves)
            self._rank_exactly(users, open_rows[~is_shallow], k, lists)
            open_rows, wanted = open_rows[is_shallow], wanted[is_shallow]
            if len(open_rows):
                depth = min(int(wanted.max()), self._items.num_items)
                self._round(users, vectors, pairs, open_rows, depth, lists)
                open_rows = open_rows[~lists.proven[open_rows]] if self._proves else open_rows[:0]
            deeper *= 2
        return lists

    def _rank_exactly(self, users: Sequence[UserBatch], rows: np.ndarray, k: int, lists: Lists) -> None:
        """Take the lists of some users from the exact ranking, which ranks all users, so that no digit differs."""
        if len(rows):
            ids, scores = zip(*top_items([users], self._items, k), strict=True)
            lists.ids[rows] = torch.cat(ids).cpu().numpy()[rows]
            lists.scores[rows] = torch.cat(scores).cpu().numpy()[rows]
            lists.proven[rows], lists.depths[rows] = True, self._items.num_items

    def _round(
        self,
        users: Sequence[UserBatch],
        vectors: np.ndarray,
        pairs: GainPairs,
        rows: np.ndarray,
        depth: int,
        lists: Lists,
    ) -> None:
        """Search for candidates of some users (rows, int64, ascending), and write their lists."""
        found = [self._index.search(vectors[rows], depth, part=p, effort=self._effort) for p in range(self._num_parts)]
        of_rows = np.isin(pairs.rows, rows)
        owners = np.concatenate([*(np.repeat(rows, depth) for _ in found), pairs.rows[of_rows]])
        asked = np.concatenate([*(ids.ravel() for ids, _ in found), pairs.items[of_rows]])
        keys = np.unique((owners * self._items.num_items + asked)[asked >= 0])
        owners, asked = np.divmod(keys, self._items.num_items)
        errors, sizes = self._errors(vectors[rows])
        outside = self._bound(np.stack([scores[:, -1] for _, scores in found]) + 2 * errors, sizes)
        if self._vectors_of is None:
            scores = same_digits(users, self._items, owners, asked)
            apart = np.zeros(len(rows))
        else:
            scores = gathered(users, self._items, self._vectors_of, pairs, owners, asked)
            of_products = 2 * errors[0] if self._fusion is None else fused_error(self._fusion, errors, sizes)
            apart = of_products + sum_error(sizes.max(axis=0) + pairs.greatest[rows])
        if self._fusion is None and self._index.stores_vectors:
            self._check_scores(found[0], rows, keys, scores, pairs, 2 * errors[0] + apart)
        ids, best = best_of(rows, owners, asked, scores, lists.ids.shape[1] + 1)
        last = best[:, -2].astype(np.float64)
        with np.errstate(invalid="ignore"):  # of two empty places
            is_ordered = (apart == 0) | (np.diff(-best.astype(np.float64), axis=1) > 2 * apart[:, None]).all(axis=1)
        lists.ids[rows], lists.scores[rows] = ids[:, :-1], best[:, :-1]
        lists.depths[rows] = depth
        proven = (last - apart > outside) & is_ordered & self._index.is_exact
        lists.proven[rows] = proven
        unclear = ~proven & (last > outside) & self._proves
        if unclear.any() and self._vectors_of is not None:
            mine = np.isin(owners, rows[unclear])
            again = same_digits(users, self._items, owners[mine], asked[mine])
            ids, best = best_of(rows[unclear], owners[mine], asked[mine], again, lists.ids.shape[1])
            lists.ids[rows[unclear]], lists.scores[rows[unclear]] = ids, best
            lists.proven[rows[unclear]] = best[:, -1] > outside[unclear]

    @property
    def _num_parts(self) -> int:
        return len(self._index.manifest.widths)

    def _errors(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the errors of inner products, and the greatest absolute value of one, float64 [parts, n] each."""
        errors, sizes, first = [], [], 0
        for width, max_norm in zip(self._index.manifest.widths, self._index.manifest.max_norms, strict=True):
            norms = np.linalg.norm(vectors[:, first : first + width].astype(np.float64), axis=1)
            errors.append(inner_product_error(width, norms, max_norm))
            sizes.append(norms * max_norm)
            first += width
        return np.stack(errors), np.stack(sizes)

    def _bound(self, bounds: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return an upper bound of the scores of items that no part found, float64 [n]."""
        return bounds[0] if self._fusion is None else fused_bound(self._fusion, bounds, sizes)

    def _check_scores(
        self,
        found: tuple[np.ndarray, np.ndarray],
        rows: np.ndarray,
        keys: np.ndarray,
        scores: np.ndarray,
        pairs: GainPairs,
        allowed: np.ndarray,
    ) -> None:
        """Check that the index scores its items as the model does, up to rounding; else it holds other vectors."""
        ids, of_index = found
        own = np.where(ids < 0, -1, rows[:, None] * self._items.num_items + ids)
        without_gain = (ids >= 0) & ~np.isin(own, pairs.rows * self._items.num_items + pairs.items)
        exact = scores[np.searchsorted(keys, own[without_gain])].astype(np.float64)
        difference = np.abs(exact - of_index[without_gain])
        if (difference > np.broadcast_to(allowed[:, None], ids.shape)[without_gain]).any():
            raise InputError(
                f"index {self._index.folder}: scores of its vectors differ from the model's by up to "
                f"{difference.max():.3g}; it was built from another run or checkpoint, build it again"
            )


def best_of(
    rows: np.ndarray, owners: np.ndarray, asked: np.ndarray, scores: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best candidates of users, by score descending, then id ascending: ids int64 [n, k], scores [n, k].

    Args:
        rows: the users, int64 [n], ascending.
        owners: the users of the pairs, int64 [p].
        asked: the items of the pairs, int64 [p]; no pair occurs twice.
        scores: float32 [p]; -inf for a hidden pair, which is left out.
        k: length of the lists; a place without an item has id -1 and score -inf.
    """
    ids, best = np.full((len(rows), k), -1, dtype=np.int64), np.full((len(rows), k), -np.inf, dtype=np.float32)
    seen = scores > -np.inf
    owners, asked, scores = owners[seen], asked[seen], scores[seen]
    order = np.lexsort((asked, -scores, owners))
    owners, asked, scores = owners[order], asked[order], scores[order]
    places = np.arange(len(owners)) - np.searchsorted(owners, owners)
    kept = places < k
    at = np.searchsorted(rows, owners[kept]), places[kept]
    ids[at], best[at] = asked[kept], scores[kept]
    return ids, best

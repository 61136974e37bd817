"""Ranks items for histories: their batches of users, lists of best items, and scores of chosen items.

Nothing here is locked, and the caller computes without gradients.

n: histories, m: users that are ranked, B: users of a group, K: items of a list, N: items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from data.ragged import offsets_of, ragged_indices
from distributed.inference.scoring import HiddenItems, Scorer
from evaluation.item_blocks import ItemBlocks
from evaluation.ranking import score_pairs, top_items
from evaluation.user_batches import UserBatch
from serving.index.search import VectorIndex
from serving.index.two_stage import TwoStages
from serving.item_lists import Choices, Histories
from serving.popular import best_of_each, popular_lists

# Pairs of a user and a chosen item that are scored at a time, and users who get popular items at a time.
_MOST_PAIRS = 1 << 24
_POPULAR_USERS = 4096


class HistoryRanking:
    """Ranks the catalogue for histories with a scorer whose weights do not change any more.

    Attributes:
        scorer: the scorer.
        counts: int64 [N], interactions of each item in the sequences that the run trained, which decide what users
            without a known item get.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.counts = np.asarray(scorer.inputs.popularity)
        self._blocks: ItemBlocks | None = None
        self._stages: TwoStages | None = None
        self._lists_are_proven = False

    @property
    def blocks(self) -> ItemBlocks:
        """The item vectors. They are computed when they are first read, and then kept if they fit."""
        if self._blocks is None:
            self._blocks = self.scorer.encoder.item_blocks(held_bytes=self.scorer.held_bytes, on_round=_nothing)
        return self._blocks

    def streamed_blocks(self) -> ItemBlocks:
        """Return item vectors that are computed in each pass and not kept, unless they are kept already."""
        return self._blocks or self.scorer.encoder.item_blocks(held_bytes=0, on_round=_nothing)

    @property
    def width(self) -> int:
        """D, the summed width of all channels' vectors."""
        with torch.no_grad():
            parts = self.scorer.encoder.items_by_channel(np.zeros(0, dtype=np.int64))
        return sum(part.shape[1] for part in parts)

    def use_index(self, index: VectorIndex | None, effort: int | None, is_verified: bool) -> None:
        """Find candidates with an index from now on; None: rank the whole catalogue.

        Candidates of a flat or hnsw index are scored from the vectors that it stores, those of other kinds from vectors
        that are computed anew.

        Args:
            index: the index.
            effort: how thoroughly an approximate index searches.
            is_verified: whether its vectors are known to be those of `blocks`. Otherwise no list is called exact.
        """
        self._stages = None
        if index is None:
            return
        self._lists_are_proven = is_verified
        self._stages = TwoStages(
            index=index,
            items=self.blocks,
            fusion=self.scorer.system.recommender.fusion,
            vectors_of=partial(self._vectors_of, index),
            effort=effort,
            prove=is_verified,
        )

    def _vectors_of(self, index: VectorIndex, items: np.ndarray) -> Tensor:
        if index.stores_vectors:
            return torch.from_numpy(index.vectors_of(items)).to(self.scorer.world.device)
        return self.scorer.system.encode_items(self.scorer.encoder.item_rows(items))

    def lists(
        self, data: Histories, k: int, hide: bool, hidden: Choices | None, allowed: Choices | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the best items of all histories: int64 [n, K], and scores float32 [n, K]; see `Predictor.recommend`.

        The third result, bool [n], says whether a list is known to be that of the ranking of the whole catalogue.

        Args:
            data: the histories.
            k: K.
            hide: whether items of a history are hidden.
            hidden: other items to hide; None: none.
            allowed: the items to choose from; None: all.
        """
        items = np.full((data.num_users, k), -1, dtype=np.int64)
        scores = np.full((data.num_users, k), -np.inf, dtype=np.float32)
        is_exact = np.ones(data.num_users, dtype=bool)
        for users, group in self.groups(data, np.flatnonzero(data.lengths > 0), hide, hidden, allowed):
            if allowed is None and self._stages is not None:
                lists = self._stages.top(group, k)
                items[users], scores[users] = lists.ids, lists.scores
                is_exact[users] = lists.proven & self._lists_are_proven
            elif allowed is None:
                found = list(top_items([group], self.blocks, k))
                items[users] = np.concatenate([ids.cpu().numpy() for ids, _ in found])
                scores[users] = np.concatenate([values.cpu().numpy() for _, values in found])
            else:
                rows, choices = allowed.known_pairs(users)
                of_pairs = score_pairs(group, self.blocks, rows, choices).cpu().numpy()
                items[users], scores[users] = best_of_each(rows, choices, of_pairs, k, len(users))
        empty = np.flatnonzero(data.lengths == 0)
        for first in range(0, len(empty), _POPULAR_USERS):
            users = empty[first : first + _POPULAR_USERS]
            items[users], scores[users] = self._popular(users, k, hidden, allowed)
        return items, scores, is_exact

    def scores(self, data: Histories, asked: Choices) -> np.ndarray:
        """Return the scores of each user's chosen items, user after user, float32; NaN where there is no score."""
        everyone = np.arange(data.num_users)
        lengths = asked.lengths(everyone)
        starts = offsets_of(lengths)
        found = np.full(starts[-1], np.nan, dtype=np.float32)
        for users, group in self.groups(data, np.flatnonzero(data.lengths > 0), False, None, asked):
            rows, items = asked.pairs(users)
            place = ragged_indices(starts[users], lengths[users])
            known = items >= 0
            found[place[known]] = score_pairs(group, self.blocks, rows[known], items[known]).cpu().numpy()
        return found

    def user_vectors(self, data: Histories) -> np.ndarray:
        """Return the vectors of users, float32 [n, D]; rows of NaN for empty histories."""
        known = np.flatnonzero(data.lengths > 0)
        vectors = np.full((data.num_users, self.width), np.nan, dtype=np.float32)
        for users, group in self.groups(data, known, False, None, None):
            vectors[users] = np.concatenate([batch.vectors.cpu().numpy() for batch in group])
        return vectors

    def groups(
        self, data: Histories, users: np.ndarray, hide: bool, hidden: Choices | None, asked: Choices | None
    ) -> Iterator[tuple[np.ndarray, list[UserBatch]]]:
        """Encode users int64 [m] of `data` in groups, and yield the users and the batches of each group.

        A group is smaller if `asked` has many items for each of its users. All batches but the last of all have
        `evaluation.user_batch` users, as in a ranking of a whole dataset.
        """
        scorer = self.scorer.for_users_of(data)
        size = max(1, len(users))
        if asked is not None and len(users):
            batch, most = self.scorer.config.evaluation.user_batch, max(1, int(asked.lengths(users).max()))
            size = max(batch, _MOST_PAIRS // most // batch * batch)
        of_users: HiddenItems | None = None
        if hidden is not None:

            def of_users(of_batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                rows, items = hidden.known_pairs(of_batch)
                return items, rows

        for first in range(0, len(users), size):
            part, done = users[first : first + size], 0
            for group in scorer.groups(part, data.lengths[part], hide, self.blocks, _nothing, of_users):
                count = sum(map(len, group))
                yield part[done : done + count], group
                done += count

    def _popular(
        self, users: np.ndarray, k: int, hidden: Choices | None, allowed: Choices | None
    ) -> tuple[np.ndarray, np.ndarray]:
        none = np.zeros(0, dtype=np.int64)
        rows, items = (none, none) if hidden is None else hidden.known_pairs(users)
        if allowed is None:
            return popular_lists(self.counts, k, (items, rows), len(users))
        of_rows, choices = allowed.known_pairs(users)
        is_hidden = np.isin(of_rows * len(self.counts) + choices, rows * len(self.counts) + items)
        scores = np.where(is_hidden, -np.inf, self.counts[choices]).astype(np.float32)
        return best_of_each(of_rows, choices, scores, k, len(users))


def _nothing() -> None:
    pass

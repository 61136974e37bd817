"""Computes the scores of a user batch and an item block, and reads ranks or best items from them before freeing them.

A GPU computes a whole block at a time, a CPU a tile of it. Everything about a pair of a user and an item is read from
matrix products of the same shape and operands. A target's score from another product could be rounded differently, so
that the target would rank above or below itself. Shapes depend only on the batch and the block, and not on the number
of ranks, groups of users or threads.

B: users of a batch, D: width of a concatenated vector, n: users of all given batches, K: length of a list, G: groupings
of the items.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from evaluation.item_blocks import ItemBlock
from evaluation.item_groups import BlockGroups
from evaluation.user_batches import UserBatch

# From users [B, D] and items [n, D] to the scores of every pair, [B, n]. The score of a pair is a function of its two
# vectors, so that it does not depend on the block that the item is in.
PairScores = Callable[[Tensor, Tensor], Tensor]

# Scores of a tile on a CPU: 1 MiB, half of a second-level cache. No size from 2^16 to 2^20 is faster. From 2^19 on, the
# scan takes longer, by up to a tenth of the time of the GEMM.
TILE_SCORES = 1 << 18
# Columns of a tile are a multiple of this, except in a block's last tile: the GEMM is slower for odd sizes.
_ALIGNMENT = 64


class BlockScorer(Protocol):
    """The operations of ranking on the scores of a block.

    The batches hold users 0 .. n - 1 in order. Tensors are on the device of the batches. Every method raises
    FloatingPointError if a score is not finite.
    """

    def read_pairs(
        self, users: Sequence[UserBatch], block: ItemBlock, rows: np.ndarray, items: np.ndarray, found: Tensor
    ) -> None:
        """Write the scores of some pairs of a user and an item of the block into `found` [p]; -inf for a hidden pair.

        Args:
            users: the batches.
            block: the items.
            rows: the pairs' users, int64 [p] in 0 .. n - 1.
            items: the pairs' items, int64 [p], ascending.
            found: [p].
        """
        ...

    def count(
        self, users: Sequence[UserBatch], block: ItemBlock, targets: Tensor, groups: BlockGroups, counts: Tensor
    ) -> None:
        """Count the block's items that score higher than each target or equal to it.

        Args:
            users: the batches.
            block: the items.
            targets: [n], the scores of the targets.
            groups: the groups of the block's items and of the targets.
            counts: int64 [n, 1 + G, 3]. Added to it are the number of items with a higher score, the number of other
                items with an equal score, and the number of the latter with a smaller id than the target: first among
                all items, then for each grouping among the items of the target's group.
        """
        ...

    def keep_best(self, users: Sequence[UserBatch], block: ItemBlock, scores: Tensor, items: Tensor) -> None:
        """Insert the block's items into the lists of best items if they score high enough.

        Blocks must come by ascending item. The entries of a list are in any order.

        Args:
            users: the batches.
            block: the items.
            scores: [n, K]; -inf for an empty entry.
            items: int64 [n, K]; -1 for an empty entry.
        """
        ...


@contextmanager
def scorer_for(device: torch.device, pair_scores: PairScores | None = None) -> Iterator[BlockScorer]:
    """Yield the scorer for a device: `CachedTiles` with as many threads as torch has on a CPU, else `WholeBlocks`.

    Args:
        device: the device of the users' and items' vectors.
        pair_scores: computes the scores of users [B, D] and items [n, D]; None: inner products.
    """
    if device.type != "cpu":
        yield WholeBlocks(pair_scores)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield CachedTiles(pool, pair_scores)
        finally:
            torch.set_num_threads(threads)


class CachedTiles:
    """Computes float32 scores on a CPU, a tile at a time; each batch runs on one thread."""

    def __init__(self, pool: ThreadPoolExecutor, pair_scores: PairScores | None = None) -> None:
        # Imported here, because loading compiled code takes seconds, also in processes that rank nothing.
        from kernels.ranking.rank_counts import add_gains, count_tile, offer_tile

        self._count_tile, self._offer_tile, self._add_gains = count_tile, offer_tile, add_gains
        self._pool, self._pair_scores = pool, pair_scores
        self._buffers = threading.local()

    def read_pairs(
        self, users: Sequence[UserBatch], block: ItemBlock, rows: np.ndarray, items: np.ndarray, found: Tensor
    ) -> None:
        out = found.numpy()

        def work(batch: UserBatch, own: slice) -> None:
            mine = np.flatnonzero((rows >= own.start) & (rows < own.stop))
            columns, width = items[mine] - block.start, _tile_columns(len(batch))
            firsts, begins = np.unique(columns // width * width, return_index=True)
            ends = np.append(begins, len(mine))
            for number, first in enumerate(firsts.tolist()):
                of_tile = mine[ends[number] : ends[number + 1]]
                scores = self._product(batch, block, first)
                at = rows[of_tile] - own.start, items[of_tile] - block.start - first
                _check_finite(bool(np.isfinite(scores[at]).all()), block)
                self._add_gains(scores, block.start + first, *_gains(batch))
                out[of_tile] = scores[at]

        self._each(users, work)

    def count(
        self, users: Sequence[UserBatch], block: ItemBlock, targets: Tensor, groups: BlockGroups, counts: Tensor
    ) -> None:
        def work(batch: UserBatch, own: slice) -> None:
            of_users = targets[own].numpy(), batch.targets, *_gains(batch)
            own_labels, own_counts = groups.of_targets[own], counts[own].numpy()
            for first in range(0, len(block.vectors), _tile_columns(len(batch))):
                scores = self._product(batch, block, first)
                labels = np.ascontiguousarray(groups.of_items[:, first : first + scores.shape[1]])
                item = block.start + first
                _check_finite(self._count_tile(scores, item, *of_users, labels, own_labels, own_counts), block)

        self._each(users, work)

    def keep_best(self, users: Sequence[UserBatch], block: ItemBlock, scores: Tensor, items: Tensor) -> None:
        def work(batch: UserBatch, own: slice) -> None:
            best = (scores[own].numpy(), items[own].numpy())
            for first in range(0, len(block.vectors), _tile_columns(len(batch))):
                tile = self._product(batch, block, first)
                _check_finite(self._offer_tile(tile, block.start + first, *_gains(batch), *best), block)

        self._each(users, work)

    def _each(self, users: Sequence[UserBatch], work: Callable[[UserBatch, slice], None]) -> None:
        """Call `work` on every batch and its slice of the users, each call on one of the threads."""
        for done in [self._pool.submit(work, *one) for one in zip(users, _places(users), strict=True)]:
            done.result()

    def _product(self, batch: UserBatch, block: ItemBlock, first: int) -> np.ndarray:
        """Return scores float32 [B, b] of a tile's columns from `first` on; valid until this thread's next call."""
        columns = block.vectors[first : first + _tile_columns(len(batch))]
        if self._pair_scores is not None:
            with torch.no_grad():  # each thread has a grad mode of its own
                return self._pair_scores(batch.vectors, columns).contiguous().numpy()
        size = len(batch) * len(columns)
        buffer: Tensor | None = getattr(self._buffers, "scores", None)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers.scores = torch.empty(size, dtype=torch.float32)
        return torch.mm(batch.vectors, columns.T, out=buffer[:size].view(len(batch), -1)).numpy()


class WholeBlocks:
    """Computes scores on any device with torch's operations, and waits for the device once per block."""

    def __init__(self, pair_scores: PairScores | None = None) -> None:
        self._pair_scores = pair_scores or _inner_products

    def read_pairs(
        self, users: Sequence[UserBatch], block: ItemBlock, rows: np.ndarray, items: np.ndarray, found: Tensor
    ) -> None:
        finite = []
        for batch, own in zip(users, _places(users), strict=True):
            mine = np.flatnonzero((rows >= own.start) & (rows < own.stop))
            if len(mine):
                scores = self._pair_scores(batch.vectors, block.vectors)
                at = self._move(rows[mine] - own.start, scores), self._move(items[mine] - block.start, scores)
                finite.append(scores[at].isfinite().all())
                self._add_gains(scores, batch, block)
                found[self._move(mine, scores)] = scores[at]
        _check_finite(not finite or bool(torch.stack(finite).all()), block)

    def count(
        self, users: Sequence[UserBatch], block: ItemBlock, targets: Tensor, groups: BlockGroups, counts: Tensor
    ) -> None:
        finite = []
        ids = torch.arange(block.start, block.stop, device=targets.device)
        for batch, own in zip(users, _places(users), strict=True):
            scores = self._pair_scores(batch.vectors, block.vectors)
            finite.append(scores.isfinite().all())
            self._add_gains(scores, batch, block)
            own_scores, own_ids = targets[own, None], self._move(batch.targets, scores)[:, None]
            tied = (scores == own_scores) & (ids != own_ids)
            rivals = scores > own_scores, tied, tied & (ids < own_ids)
            counts[own, 0] += torch.stack([which.sum(1) for which in rivals], dim=1)
            for number, labels in enumerate(groups.of_items):
                own_labels = self._move(groups.of_targets[own, number], scores)[:, None]
                same = self._move(labels, scores) == own_labels
                counts[own, 1 + number] += torch.stack([(which & same).sum(1) for which in rivals], dim=1)
        _check_finite(bool(torch.stack(finite).all()), block)

    def keep_best(self, users: Sequence[UserBatch], block: ItemBlock, scores: Tensor, items: Tensor) -> None:
        finite = []
        for batch, own in zip(users, _places(users), strict=True):
            new = self._pair_scores(batch.vectors, block.vectors)
            finite.append(new.isfinite().all())
            self._add_gains(new, batch, block)
            values, ids = _block_top(new, block.start, scores.shape[1])
            kept = merge_top(torch.cat([items[own], ids], 1), torch.cat([scores[own], values], 1), scores.shape[1])
            items[own], scores[own] = kept
        _check_finite(bool(torch.stack(finite).all()), block)

    @staticmethod
    def _add_gains(scores: Tensor, batch: UserBatch, block: ItemBlock) -> None:
        begin, end = np.searchsorted(batch.gain_items, [block.start, block.stop])
        if end > begin:
            items, users, gains = (WholeBlocks._move(array[begin:end], scores) for array in _gains(batch))
            scores[users, items - block.start] += gains

    @staticmethod
    def _move(array: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(array).to(like.device, non_blocking=True)


def _inner_products(users: Tensor, items: Tensor) -> Tensor:
    return users @ items.T


def merge_top(ids: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the best k entries of each row, by score descending, then id ascending; padding (id -1) comes last."""
    scores = scores.masked_fill(ids < 0, -torch.inf)
    by_id = ids.argsort(dim=1, stable=True)
    by_score = scores.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    order = by_id.gather(1, by_score)[:, :k]
    return ids.gather(1, order), scores.gather(1, order)


def _block_top(scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """Return the best min(k, n) items of a block. torch.topk breaks ties arbitrarily, so rows with a tie are sorted."""
    k = min(k, scores.shape[1])
    values, columns = scores.topk(k, dim=1)
    cut = values[:, -1:]
    ambiguous = ((scores == cut).sum(1) > (values == cut).sum(1)).nonzero().squeeze(1)
    if len(ambiguous):
        order = scores[ambiguous].argsort(dim=1, descending=True, stable=True)[:, :k]
        columns[ambiguous] = order
        values[ambiguous] = scores[ambiguous].gather(1, order)
    return values, columns + start


def _places(users: Sequence[UserBatch]) -> list[slice]:
    ends = np.cumsum([0, *map(len, users)]).tolist()
    return [slice(*ends[k : k + 2]) for k in range(len(users))]


def _gains(batch: UserBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return batch.gain_items, batch.gain_users, batch.gains


def _tile_columns(num_users: int) -> int:
    return max(_ALIGNMENT, TILE_SCORES // num_users // _ALIGNMENT * _ALIGNMENT)


def _check_finite(finite: bool, block: ItemBlock) -> None:
    if not finite:
        raise FloatingPointError(
            f"scores of items {block.start}..{block.stop - 1} are not finite: the model diverged; lower "
            "training.learning_rate or set training.gradient_clip and train a new run, or use an earlier checkpoint"
        )

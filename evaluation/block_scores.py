"""Scores of (user batch, item block), made, looked at and thrown away: on a GPU by block, on a CPU by tile.

Whatever is wanted of a pair of a user and an item is read from a product of the same shape and operands: a target's
score from another one would round differently, and a target could then outrank itself. Shapes depend on the batch and
the block alone, never on ranks, passes or threads.

B: users of a batch, D: width of a concatenated vector, n: users of all batches given, K: places of a list.
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
from evaluation.user_batches import UserBatch

# Scores of a tile on a CPU: 1 MiB, half a second-level cache. Of 2^16 to 2^20 none is faster; from 2^19 on the scan
# costs up to a tenth of the GEMM more.
TILE_SCORES = 1 << 18
# Columns of a tile are a multiple of this, but for a block's last tile: odd sizes cost the GEMM speed.
_ALIGNMENT = 64


class BlockScorer(Protocol):
    """What ranking does with a block's scores. Batches are users 0 .. n - 1 in order; tensors are on their device.

    Every method raises FloatingPointError if it meets a score that is not a number.
    """

    def read_targets(self, users: Sequence[UserBatch], block: ItemBlock, found: Tensor) -> None:
        """Write the scores of the targets that are in the block into found [n]."""
        ...

    def count(self, users: Sequence[UserBatch], block: ItemBlock, lines: Tensor, counts: Tensor) -> None:
        """Add to counts int64 [n, 3]: items above the lines [n], others tied, and those of them before the target."""
        ...

    def keep_best(self, users: Sequence[UserBatch], block: ItemBlock, scores: Tensor, items: Tensor) -> None:
        """Offer the block's items to the lists [n, K], in any order; -inf and -1 where empty. Blocks ascend."""
        ...


@contextmanager
def scorer_for(device: torch.device) -> Iterator[BlockScorer]:
    """Tiles in cache and as many threads as torch is set to on a CPU, else torch's operations on whole blocks."""
    if device.type != "cpu":
        yield WholeBlocks()
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield CachedTiles(pool)
        finally:
            torch.set_num_threads(threads)


class CachedTiles:
    """Scores float32 on a CPU, a tile at a time, each batch on one thread."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        # Imported here: compiled code costs seconds where nothing is ranked.
        from kernels.ranking.rank_counts import add_gains, count_tile, offer_tile

        self._count_tile, self._offer_tile, self._add_gains = count_tile, offer_tile, add_gains
        self._pool = pool
        self._buffers = threading.local()

    def read_targets(self, users: Sequence[UserBatch], block: ItemBlock, found: Tensor) -> None:
        def work(batch: UserBatch, own: slice) -> None:
            rows = np.flatnonzero((batch.targets >= block.start) & (batch.targets < block.stop))
            columns = batch.targets[rows] - block.start
            width = _tile_columns(len(batch))
            for first in np.unique(columns // width * width).tolist():
                scores = self._product(batch, block, first)
                self._add_gains(scores, block.start + first, *_gains(batch))
                inside = (columns >= first) & (columns < first + width)
                found[own].numpy()[rows[inside]] = scores[rows[inside], columns[inside] - first]
            _check_finite(bool(found[own].isfinite()[rows].all()), block)

        self._each(users, work)

    def count(self, users: Sequence[UserBatch], block: ItemBlock, lines: Tensor, counts: Tensor) -> None:
        def work(batch: UserBatch, own: slice) -> None:
            own_lines, own_counts = lines[own].numpy(), counts[own].numpy()
            for first in range(0, len(block.vectors), _tile_columns(len(batch))):
                scores = self._product(batch, block, first)
                item = block.start + first
                finite = self._count_tile(scores, item, own_lines, batch.targets, *_gains(batch), own_counts)
                _check_finite(finite, block)

        self._each(users, work)

    def keep_best(self, users: Sequence[UserBatch], block: ItemBlock, scores: Tensor, items: Tensor) -> None:
        def work(batch: UserBatch, own: slice) -> None:
            best = (scores[own].numpy(), items[own].numpy())
            for first in range(0, len(block.vectors), _tile_columns(len(batch))):
                tile = self._product(batch, block, first)
                _check_finite(self._offer_tile(tile, block.start + first, *_gains(batch), *best), block)

        self._each(users, work)

    def _each(self, users: Sequence[UserBatch], work: Callable[[UserBatch, slice], None]) -> None:
        """`work` on every batch and its place among the users, each on one of the threads."""
        for done in [self._pool.submit(work, *one) for one in zip(users, _places(users), strict=True)]:
            done.result()

    def _product(self, batch: UserBatch, block: ItemBlock, first: int) -> np.ndarray:
        """Scores float32 [B, b] of the block's columns from `first` on; valid until this thread's next product."""
        columns = block.vectors[first : first + _tile_columns(len(batch))]
        size = len(batch) * len(columns)
        buffer: Tensor | None = getattr(self._buffers, "scores", None)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers.scores = torch.empty(size, dtype=torch.float32)
        return torch.mm(batch.vectors, columns.T, out=buffer[:size].view(len(batch), -1)).numpy()


class WholeBlocks:
    """Scores on any device with torch's operations, which wait for the device once a block."""

    def read_targets(self, users: Sequence[UserBatch], block: ItemBlock, found: Tensor) -> None:
        finite = []
        for batch, own in zip(users, _places(users), strict=True):
            rows = np.flatnonzero((batch.targets >= block.start) & (batch.targets < block.stop))
            if len(rows):
                scores = batch.vectors @ block.vectors.T
                self._add_gains(scores, batch, block)
                at = self._move(rows, scores)
                found[own][at] = scores[at, self._move(batch.targets[rows] - block.start, scores)]
                finite.append(found[own][at].isfinite().all())
        _check_finite(not finite or bool(torch.stack(finite).all()), block)

    def count(self, users: Sequence[UserBatch], block: ItemBlock, lines: Tensor, counts: Tensor) -> None:
        finite = []
        ids = torch.arange(block.start, block.stop, device=lines.device)
        for batch, own in zip(users, _places(users), strict=True):
            scores = batch.vectors @ block.vectors.T
            finite.append(scores.isfinite().all())
            self._add_gains(scores, batch, block)
            line, targets = lines[own, None], self._move(batch.targets, scores)[:, None]
            tied = (scores == line) & (ids != targets)
            counts[own] += torch.stack([(scores > line).sum(1), tied.sum(1), (tied & (ids < targets)).sum(1)], dim=1)
        _check_finite(bool(torch.stack(finite).all()), block)

    def keep_best(self, users: Sequence[UserBatch], block: ItemBlock, scores: Tensor, items: Tensor) -> None:
        finite = []
        for batch, own in zip(users, _places(users), strict=True):
            new = batch.vectors @ block.vectors.T
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


def merge_top(ids: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best k of each row by score descending, then id ascending; ids -1 (padding) come last."""
    scores = scores.masked_fill(ids < 0, -torch.inf)
    by_id = ids.argsort(dim=1, stable=True)
    by_score = scores.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    order = by_id.gather(1, by_score)[:, :k]
    return ids.gather(1, order), scores.gather(1, order)


def _block_top(scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """Best min(k, n) of one block; torch.topk breaks ties at will, so rows tied at the cut are sorted."""
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

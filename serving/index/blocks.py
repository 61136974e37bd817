"""Reads item vectors in blocks, for a build and for a check of an index.

N: items, D: width of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from contracts.errors import InputError
from evaluation.item_blocks import ItemBlocks
from serving.index.manifest import IndexManifest

# From a range of items to blocks that cover it: the first item of a block and its vectors, float32 [n, D]. Blocks come
# in the order of items. The first may begin before the range, and the last may end after it.
Blocks = Callable[[int, int], Iterable[tuple[int, np.ndarray]]]


def blocks_of(items: ItemBlocks) -> Blocks:
    """Return the blocks of a ranking in one process, so that an index has the very vectors that are ranked."""

    def read(start: int, stop: int) -> Iterable[tuple[int, np.ndarray]]:
        for block in items.pass_over(items.rounds_of(np.arange(start, stop))):
            yield block.start, block.vectors.cpu().numpy()

    return read


def vectors_in(blocks: Blocks, start: int, stop: int, width: int) -> Iterable[np.ndarray]:
    """Yield the vectors of items start .. stop - 1 in order, float32 [n, D], cut to this range and checked.

    Args:
        blocks: reads the vectors.
        start: the first item.
        stop: the item after the last.
        width: D.

    Raises:
        InputError: vectors have another width.
        FloatingPointError: a vector is not finite.
        ValueError: blocks are not in order, or do not cover the range.
    """
    done = start
    for first, block in blocks(start, stop):
        vectors = np.ascontiguousarray(block[max(start - first, 0) : stop - first], dtype=np.float32)
        if not len(vectors):
            continue
        if vectors.shape[1] != width:
            raise InputError(
                f"vectors of item {done} have {vectors.shape[1]} numbers, the index has {width}; use the index, or the "
                "widths, of this model"
            )
        if max(first, start) != done:
            raise ValueError(f"blocks of items must be in order: item {max(first, start)} came instead of {done}")
        if not np.isfinite(vectors).all():
            raise FloatingPointError(
                f"vectors of items {done}..{done + len(vectors) - 1} are not finite: the model diverged; use an "
                "earlier checkpoint"
            )
        yield vectors
        done += len(vectors)
    if done != stop:
        raise ValueError(f"blocks of items end at item {done}, expected {stop}")


def has_these_vectors(manifest: IndexManifest, blocks: Blocks) -> bool:
    """Return whether an index was built from exactly these vectors, to the last bit; reads each block once.

    The same checkpoint may give other last digits on another processor, or with other `evaluation.item_block`.
    """
    for shard in manifest.shards:
        digest = hashlib.sha256()
        for vectors in vectors_in(blocks, shard.start, shard.stop, manifest.width):
            digest.update(vectors.data)
        if digest.hexdigest() != shard.vectors_sha256:
            return False
    return True

"""The co-occurrence matrix O on disk: CSR rows in blocks, read through memory maps.

`block-00000.{indptr,indices,weights}.npy`: int64 [rows+1] from 0, int64 [nnz] item ids ascending within
a row, float32 [nnz]. All blocks but the last have `block_rows` rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs.errors import InputError
from graph_builder.work import load_array, num_row_blocks, row_range, save_array

_CHECKED_AT_A_TIME = 1 << 22


def save_rows(folder: Path, index: int, indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> None:
    """Write one block."""
    for name, array in (("indptr", indptr), ("indices", indices), ("weights", weights)):
        save_array(folder / f"block-{index:05d}.{name}.npy", array)


class CooccurrenceRows:
    """Random access to the rows of O."""

    def __init__(self, folder: Path, block_rows: int, num_items: int) -> None:
        """Opens every block.

        Raises:
            InputError: a file is missing, truncated, or not of the form above.
        """
        self.block_rows = block_rows
        self.num_items = num_items
        self._blocks = [self._open(folder, index) for index in range(num_row_blocks(block_rows, num_items))]

    def rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of O in the order asked for: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz].

        Memory: the answer, and one block's part of it. A request for all items is a concatenation.
        """
        items = np.asarray(items, dtype=np.int64)
        assert not len(items) or (items.min() >= 0 and items.max() < self.num_items)
        block_of = items // self.block_rows
        starts = np.zeros(len(items), dtype=np.int64)
        lengths = np.zeros(len(items), dtype=np.int64)
        asked = [(block, np.flatnonzero(block_of == block)) for block in np.unique(block_of)]
        for block, places in asked:
            indptr = self._blocks[block][0]
            rows = items[places] - block * self.block_rows
            starts[places] = indptr[rows]
            lengths[places] = indptr[rows + 1] - starts[places]
        out_indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        indices = np.empty(out_indptr[-1], dtype=np.int64)
        weights = np.empty(out_indptr[-1], dtype=np.float32)
        for block, places in asked:
            # Entry e of place p moves from starts[p] + e to out_indptr[p] + e.
            within = np.arange(lengths[places].sum()) - np.repeat(
                np.cumsum(lengths[places]) - lengths[places], lengths[places]
            )
            source = np.repeat(starts[places], lengths[places]) + within
            target = np.repeat(out_indptr[places], lengths[places]) + within
            indices[target] = self._blocks[block][1][source]
            weights[target] = self._blocks[block][2][source]
        return out_indptr, indices, weights

    def _open(self, folder: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = row_range(index, self.block_rows, self.num_items)
        stem = folder / f"block-{index:05d}"
        indptr = open_array(stem.with_suffix(".indptr.npy"), np.int64, (rows.stop - rows.start + 1,))
        if indptr[0] != 0 or (np.diff(indptr) < 0).any():
            raise InputError(f"{stem}.indptr.npy: does not ascend from 0; build the graph again")
        indices = open_array(stem.with_suffix(".indices.npy"), np.int64, (int(indptr[-1]),))
        weights = open_array(stem.with_suffix(".weights.npy"), np.float32, (int(indptr[-1]),))
        check_range(indices, 0, self.num_items, stem.with_suffix(".indices.npy"))
        return indptr, indices, weights


def open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A memory map of a `.npy` file of a known form; -1 in `shape` fits any length.

    Raises:
        InputError: missing, truncated, or of another dtype or shape.
    """
    try:
        array = load_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: missing or truncated ({error}); build the graph again") from None
    fits = array.ndim == len(shape) and all(want in (-1, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        wanted = f"{np.dtype(dtype)} {list(shape)}"
        raise InputError(f"{path}: holds {array.dtype} {list(array.shape)}, expected {wanted}; build the graph again")
    return array


def check_range(ids: np.ndarray, low: int, high: int, path: Path) -> None:
    """Every id is in [low, high): TorchRec answers others with some other row, not with an error.

    Raises:
        InputError: naming the row and the id. Memory: one piece of the array at a time.
    """
    step = max(1, _CHECKED_AT_A_TIME // max(1, int(np.prod(ids.shape[1:]))))
    for first in range(0, len(ids), step):
        piece = ids[first : first + step]
        outside = (piece < low) | (piece >= high)
        if outside.any():
            place = np.unravel_index(int(outside.argmax()), outside.shape)
            raise InputError(
                f"{path}: row {first + place[0]} holds {piece[place]}, outside [{low}, {high}); build the graph again"
            )

"""The files of the co-occurrence matrix O: CSR rows in blocks, read through memory maps.

    block-00000.indptr.npy   int64 [rows+1], from 0
    block-00000.indices.npy  int64 [nnz], item ids, ascending within a row
    block-00000.weights.npy  float32 [nnz]

All blocks except the last have `block_rows` rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from contracts.errors import InputError
from graph_builder.work_folder import num_row_blocks, row_range
from storage.array_file import map_array, save_array
from storage.durable_files import replacing

_AT_A_TIME = 1 << 22
_COPIED_BYTES = 1 << 18


class RowWriter:
    """A writer of rows of O, some rows at a time."""

    def __init__(self, indices: BinaryIO, weights: BinaryIO) -> None:
        """Use `writing_rows`."""
        self._indices = indices
        self._weights = weights
        self.lengths: list[np.ndarray] = []

    def append(self, lengths: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> None:
        """Append the next rows: lengths int64 [rows], indices int64 [nnz], weights float32 [nnz]."""
        assert indices.dtype == np.int64
        assert weights.dtype == np.float32
        self.lengths.append(lengths)
        indices.tofile(self._indices)
        weights.tofile(self._weights)

    def append_all(self, stem: Path) -> None:
        """Append all rows that were written under another stem."""
        self.lengths.append(np.diff(map_array(stem.with_suffix(".indptr.npy"))))
        for suffix, target in ((".indices.npy", self._indices), (".weights.npy", self._weights)):
            with stem.with_suffix(suffix).open("rb") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                shutil.copyfileobj(file, target, _COPIED_BYTES)


@contextmanager
def writing_rows(stem: Path) -> Iterator[RowWriter]:
    """Write `stem`.{indptr,indices,weights}.npy when the `with` block ends without an error; indptr is written last."""
    indices, weights = stem.with_suffix(".indices.npy"), stem.with_suffix(".weights.npy")
    with _growing_array(indices, np.int64) as index_file, _growing_array(weights, np.float32) as weight_file:
        writer = RowWriter(index_file, weight_file)
        yield writer
    ends = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *writer.lengths]))
    save_array(stem.with_suffix(".indptr.npy"), ends)


def is_written(stem: Path) -> bool:
    """Return whether `writing_rows` has finished."""
    return stem.with_suffix(".indptr.npy").exists()


def join_rows(stem: Path, parts: list[Path]) -> None:
    """Write the rows of several stems, one after the other, under one stem. Memory: a few rows at a time."""
    with writing_rows(stem) as writer:
        for part in parts:
            writer.append_all(part)


@contextmanager
def _growing_array(path: Path, dtype: type) -> Iterator[BinaryIO]:
    """Open a one-dimensional `.npy` file to append values to. It ends with the same bytes as from `save_array`."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        _write_header(file, dtype, 0)
        begin = file.tell()
        yield file
        count = (file.tell() - begin) // np.dtype(dtype).itemsize
        file.seek(0)
        _write_header(file, dtype, count)
        # NumPy pads headers, so the array's length can be written afterwards.
        assert file.tell() == begin


def _write_header(file: BinaryIO, dtype: type, count: int) -> None:
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": (count,)})


class CooccurrenceRows:
    """Random access to the rows of O."""

    def __init__(self, folder: Path, block_rows: int, num_items: int) -> None:
        """Prepare access to a folder's blocks. A block is opened and checked when one of its rows is first requested.

        Args:
            folder: the folder of the blocks.
            block_rows: rows of each block except the last.
            num_items: N.
        """
        self.block_rows = block_rows
        self.num_items = num_items
        self._folder = folder
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def open_all(self) -> None:
        """Open every block, without reading the ids.

        Raises:
            InputError: a file is missing or truncated, or has another dtype or shape than stated above.
        """
        for index in range(num_row_blocks(self.block_rows, self.num_items)):
            self._block(index)

    def rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows of O in the requested order: indptr int64 [n+1], items int64 [nnz], weights float32 [nnz].

        Memory: the result, and one block's part of it.

        Args:
            items: int64 [n], the requested rows.

        Raises:
            InputError: a file is missing or truncated, or has another dtype or shape; or an id is out of range.
        """
        items = np.asarray(items, dtype=np.int64)
        assert not len(items) or (items.min() >= 0 and items.max() < self.num_items)
        block_of = items // self.block_rows
        starts = np.zeros(len(items), dtype=np.int64)
        lengths = np.zeros(len(items), dtype=np.int64)
        asked = [(block, np.flatnonzero(block_of == block)) for block in np.unique(block_of)]
        for block, places in asked:
            indptr = self._block(block)[0]
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
            found = self._block(block)[1][source]
            self._check(found, source, block)
            indices[target] = found
            weights[target] = self._block(block)[2][source]
        return out_indptr, indices, weights

    def _check(self, found: np.ndarray, source: np.ndarray, block: int) -> None:
        """Check that the returned ids are in range, as `check_range` does. Checking all of O would take minutes."""
        outside = (found < 0) | (found >= self.num_items)
        if outside.any():
            entry = int(outside.argmax())
            raise InputError(
                f"{self._stem(block)}.indices.npy: row {source[entry]} holds {found[entry]}, outside "
                f"[0, {self.num_items}); build the graph again"
            )

    def _stem(self, index: int) -> Path:
        return self._folder / f"block-{index:05d}"

    def _block(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if index not in self._blocks:
            self._blocks[index] = self._open(index)
        return self._blocks[index]

    def _open(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = row_range(index, self.block_rows, self.num_items)
        stem = self._stem(index)
        indptr = open_array(stem.with_suffix(".indptr.npy"), np.int64, (rows.stop - rows.start + 1,))
        if indptr[0] != 0 or (np.diff(indptr) < 0).any():
            raise InputError(f"{stem}.indptr.npy: does not ascend from 0; build the graph again")
        indices = open_array(stem.with_suffix(".indices.npy"), np.int64, (int(indptr[-1]),))
        weights = open_array(stem.with_suffix(".weights.npy"), np.float32, (int(indptr[-1]),))
        return indptr, indices, weights


def open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Return a memory map of a `.npy` file and check its dtype and shape; -1 in `shape` allows any length.

    Raises:
        InputError: missing, truncated, or of another dtype or shape.
    """
    try:
        array = map_array(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: missing or truncated ({error}); build the graph again") from None
    fits = array.ndim == len(shape) and all(want in (-1, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        wanted = f"{np.dtype(dtype)} {list(shape)}"
        raise InputError(f"{path}: holds {array.dtype} {list(array.shape)}, expected {wanted}; build the graph again")
    return array


def check_range(ids: np.ndarray, low: int, high: int, path: Path) -> None:
    """Check that every id is in [low, high). For an id out of range, TorchRec returns a wrong row and no error.

    Memory: one chunk of the array at a time.

    Raises:
        InputError: an id is out of range; the message names its row.
    """
    step = max(1, _AT_A_TIME // max(1, int(np.prod(ids.shape[1:]))))
    for first in range(0, len(ids), step):
        chunk = ids[first : first + step]
        outside = (chunk < low) | (chunk >= high)
        if outside.any():
            place = np.unravel_index(int(outside.argmax()), outside.shape)
            raise InputError(
                f"{path}: row {first + place[0]} holds {chunk[place]}, outside [{low}, {high}); build the graph again"
            )

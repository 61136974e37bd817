"""The rows of a feature file on the GPU: copied once per process, for the neighbour search and for exact ranking.

Otherwise each stage would gather rows in host memory and send them again: at 1M x 384 the ranking alone would send 28
GiB, because most rows are candidates of many others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from kernels.backend import to_host
from kernels.cuda.launchers import pair_dots
from storage.array_file import map_array

# A matrix is held if it takes at most this share of the memory that is free. The rest is for the search itself.
_SHARE_OF_FREE = 0.5
_ROWS_AT_A_TIME = 1 << 16

_held: dict[tuple[Any, ...], Any] = {}  # at most one matrix, by its file and device


def rows_on_device(xp: Any, path: Path) -> Any | None:
    """Return the matrix of a `.npy` file on the current device, or None if it takes too much of the free memory.

    The matrix stays on the device until another file is asked for, or `release_rows`.
    """
    status = os.stat(path)
    key = (xp, _device(xp), str(path), status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _held:
        _held.clear()
        matrix = map_array(path)
        if matrix.nbytes > _SHARE_OF_FREE * _free_bytes(xp):
            return None
        rows = xp.empty(matrix.shape, dtype=matrix.dtype)
        for first in range(0, len(matrix), _ROWS_AT_A_TIME):
            part = slice(first, first + _ROWS_AT_A_TIME)
            rows[part] = xp.asarray(np.ascontiguousarray(matrix[part]))
        _held[key] = rows
    return _held[key]


def release_rows() -> None:
    """Forget the matrix that is on the device, so that its memory can be used otherwise."""
    _held.clear()


class DeviceDots:
    """Computes `exact_dots.pair_dots` on the GPU, with the same bits. The rows of the given file are sent once."""

    def __init__(self, xp: Any, path: Path) -> None:
        """Copy the rows of a `.npy` file, float32 [N, d], to the device, if they fit."""
        self._xp = xp
        self._rows = rows_on_device(xp, path)

    def __call__(
        self, left: np.ndarray, left_index: np.ndarray, right: np.ndarray, right_index: np.ndarray
    ) -> np.ndarray:
        """See `exact_dots.pair_dots`. Both matrices hold the rows of the file."""
        if self._rows is None:
            return host_pair_dots(self._xp, left, left_index, right, right_index)
        assert left.shape == right.shape == self._rows.shape
        indices = (self._xp.asarray(index.astype(np.int64)) for index in (left_index, right_index))
        first, second = indices
        return to_host(pair_dots(self._rows, first, self._rows, second))


def host_pair_dots(
    xp: Any, left: np.ndarray, left_index: np.ndarray, right: np.ndarray, right_index: np.ndarray
) -> np.ndarray:
    """Compute `exact_dots.pair_dots` on the GPU for matrices in host memory or memory maps.

    Only the rows that the indices name are copied to the GPU.
    """
    sides = []
    for matrix, index in ((left, left_index), (right, right_index)):
        needed, compact = np.unique(index, return_inverse=True)
        sides += [xp.asarray(np.ascontiguousarray(matrix[needed])), xp.asarray(compact)]
    return to_host(pair_dots(*sides))


def _device(xp: Any) -> int:
    return int(xp.cuda.Device().id)


def _free_bytes(xp: Any) -> int:
    """Return the free memory of the current device; what CuPy keeps for reuse counts as free."""
    pool = xp.get_default_memory_pool()
    pool.free_all_blocks()
    free, _ = xp.cuda.runtime.memGetInfo()
    return int(free)

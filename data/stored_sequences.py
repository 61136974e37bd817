"""Sequences that lie in files, part by part, and are copied into sequences.arrow without being held in memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

_COPY_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class StoredSequences:
    """As `writing.Sequences`, but items and timestamps are in files.

    Attributes:
        offsets: int64 [U+1]; the sequence of user u has the rows offsets[u] .. offsets[u + 1] - 1 of all parts.
        item_files: .npy files, int64, which hold E items when they are put one after the other.
        time_files: likewise the timestamps; None: there are none.
        train_end: int64 [U], number of training items, which are the first of the user's sequence.
        valid_end: int64 [U], number of training and validation items.
        training_counts: int64 [N], the number of training interactions of each item.
    """

    offsets: np.ndarray
    item_files: Sequence[Path]
    time_files: Sequence[Path] | None
    train_end: np.ndarray
    valid_end: np.ndarray
    training_counts: np.ndarray

    @property
    def num_interactions(self) -> int:
        return int(self.offsets[-1])

    @property
    def has_timestamps(self) -> bool:
        return self.time_files is not None

    def popularity(self, num_items: int) -> np.ndarray:
        """Return the number of training interactions of each item: int64 [N]."""
        assert len(self.training_counts) == num_items
        return self.training_counts


class SplicingFile:
    """A file for Arrow's writer that takes some buffers from files.

    Arrow lays out the file, and gets a buffer of addresses without memory behind them for each column that is in
    files. When it writes this buffer, the files' content is written instead.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.closed = False
        self._file = file
        self._files: dict[int, Sequence[Path]] = {}

    def values(self, files: Sequence[Path], count: int) -> pa.Array:
        """Return an int64 array that must not be read, but is written as the content of the .npy files."""
        # Pages of such a mapping that nobody reads take no memory, and the kernel does not reserve any.
        buffer = pa.py_buffer(mmap.mmap(-1, count * 8, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
        self._files[buffer.address] = files
        return pa.Array.from_buffers(pa.int64(), count, [None, buffer])

    def write(self, data: bytes | pa.Buffer) -> int:
        """Write bytes, or the files that stand for the buffer."""
        size = len(memoryview(data))
        files = self._files.get(data.address) if isinstance(data, pa.Buffer) else None
        if files is None:
            self._file.write(data)
            return size
        written = sum(self._copy(path) for path in files)
        assert written == size, f"{written} bytes instead of {size}"
        return written

    def _copy(self, path: Path) -> int:
        """Copy the numbers of a .npy file. They are read, not mapped, so that they do not stay in this process."""
        with path.open("rb") as source:
            assert np.lib.format.read_magic(source) == (1, 0)
            (size,), _, dtype = np.lib.format.read_array_header_1_0(source)
            assert dtype == np.int64, dtype
            while block := source.read(_COPY_BYTES):
                self._file.write(block)
        return int(size) * 8

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

"""Read `.npy` files as memory maps without pickle, and write them atomically."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from storage.durable_files import replacing


def map_array(path: str | Path) -> np.ndarray:
    """Return a read-only memory map of a `.npy` file.

    For a valid file the result is that of np.load(mmap_mode="r"). Unlike np.load, the function reads no archives and
    no pickles, and raises the same exception for every invalid header.

    Raises:
        OSError: the file cannot be opened or mapped.
        ValueError: it is not a `.npy` file, is shorter than its header says, or holds Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # NumPy tokenizes, parses and evaluates headers: each stage has its own exceptions
        raise ValueError(" ".join(str(error).split())) from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array of any dtype but Python objects to a `.npy` file; see `replacing`."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)

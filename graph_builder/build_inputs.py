"""The inputs of a graph build: the protocol that a dataset implements, and plain files of features and sequences."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contracts.errors import InputError
from contracts.modalities import check_new_modalities
from graph_builder.sequence_file import open_sequences
from storage.array_file import map_array
from storage.fingerprints import files_digest

_DTYPES = (np.float16, np.float32)
_PREPARE = "prepare the dataset again"


class GraphSource(Protocol):
    """The inputs that the graph builder reads. `data.dataset.Dataset` and `ArraySource` implement it."""

    @property
    def path(self) -> str:
        """Where the source is stored, for messages and the manifest."""
        ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def num_items(self) -> int: ...

    @property
    def modalities(self) -> Sequence[str]: ...

    @property
    def items(self) -> np.ndarray:
        """Item ids, integers [interactions]: every user's sequence, oldest first."""
        ...

    @property
    def offsets(self) -> np.ndarray:
        """int64 [users+1], where each user's sequence begins in `items`."""
        ...

    @property
    def train_end(self) -> np.ndarray:
        """int64 [users], how many items of each sequence, from its start, are for training."""
        ...

    def feature_path(self, modality: str) -> Path:
        """The `.npy` file of a modality, float16 or float32 [N, d_m]; tasks map it by this path."""
        ...


class OfChosenUsers:
    """A source in which users who are not chosen have no training part (implements `GraphSource`)."""

    def __init__(self, source: GraphSource, chosen: np.ndarray) -> None:
        """`chosen` says which users are, bool [users]."""
        self.path, self.fingerprint = source.path, source.fingerprint
        self.num_items, self.modalities = source.num_items, source.modalities
        self.items, self.offsets = source.items, source.offsets
        self.train_end = np.where(chosen, source.train_end, 0)
        self.feature_path = source.feature_path


class ArraySource:
    """Feature matrices by modality, sequences, or both, as plain files (implements `GraphSource`).

    Without sequences, O is empty and nothing is injected. Without features, there is no modality. Files are
    memory-mapped. Sequences that cannot be mapped are copied once to a file that disappears with the process (see
    `sequence_file`).

    Attributes:
        path: the files' paths, comma-separated.
        num_items: N: the rows of the features, else the argument `num_items`, else the largest id of the sequences +
            1.
        modalities: names, ascending.
        fingerprint: SHA-256 of N, the features' bytes and the sequences' content, computed at first use. It does not
            depend on the sequences' file format (Parquet or Arrow), row groups or compression.
    """

    def __init__(
        self,
        *,
        features: Mapping[str, str | Path],
        sequences: str | Path | None = None,
        num_items: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        """Open the files and check them. Whether features are finite is checked later, by `injection.find_rows`.

        Args:
            features: modality -> `.npy` file. All files have the same number of rows, and row i belongs to item i.
            sequences: a Parquet or Arrow file, see `sequence_file.open_sequences`.
            num_items: N, for sequences without features.
            scratch: folder for the copy of sequences that cannot be mapped; null: the folder of the file.

        Raises:
            InputError: neither features nor sequences are given, a modality's name is not allowed, the files have
                different numbers of rows, or a file is invalid.
        """
        if not features and sequences is None:
            raise InputError("no input: name a dataset, features or sequences")
        check_new_modalities(features)
        self.modalities = tuple(sorted(features))
        self._features = {m: Path(features[m]).absolute() for m in self.modalities}
        shapes = {m: check_features(file) for m, file in self._features.items()}
        num_items = _same_num_items(self._features, shapes, num_items)
        found = None
        if sequences is not None:
            found = open_sequences(Path(sequences).absolute(), num_items, scratch)
            num_items = found.num_items
        assert num_items is not None
        self.num_items = num_items
        self.items = found.items if found else np.zeros(0, dtype=np.int64)
        self.offsets = found.offsets if found else np.zeros(1, dtype=np.int64)
        self.train_end = found.train_end if found else np.zeros(0, dtype=np.int64)
        files = [*self._features.values(), *([Path(sequences).absolute()] if sequences else [])]
        self.path = ",".join(map(str, files))
        self._sequences = found.fingerprint if found else None

    @functools.cached_property
    def fingerprint(self) -> str:
        return _fingerprint(self.num_items, self._features, self._sequences)

    def feature_path(self, modality: str) -> Path:
        return self._features[modality]


def feature_path(source: GraphSource, modality: str) -> Path:
    """Return the file of a modality's raw features [N, d_m].

    Raises:
        InputError: there is no such file, or it is not float16 or float32 with N rows.
    """
    path = source.feature_path(modality).absolute()
    rows, _ = check_features(path)
    if rows != source.num_items:
        raise InputError(f"{path}: holds {rows} rows for {source.num_items} items; {_PREPARE}")
    return path


def check_features(path: Path) -> tuple[int, int]:
    """Return N and the width of a feature file. Only the header is read.

    Raises:
        InputError: not a readable `.npy` file, truncated, or not C-ordered float16 or float32 [items, width].
    """
    save_as = f"save it as np.save({path.name!r}, np.ascontiguousarray(array, dtype=np.float32))"
    shape, fortran_order, dtype = _read_header(path)
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects, which only pickle reads and this code never does; {save_as}")
    if dtype not in _DTYPES:
        raise InputError(f"{path}: holds {dtype} {list(shape)}, expected float16 or float32; {save_as}")
    if len(shape) != 2:
        raise InputError(
            f"{path}: has {len(shape)} dimension(s) {list(shape)}, expected 2: [items, width], a row per item; "
            "reshape it to one row per item"
        )
    if 0 in shape:
        raise InputError(f"{path}: is empty {list(shape)}, expected [items, width]; encode at least one item")
    if fortran_order:
        raise InputError(f"{path}: lies in column order (Fortran), so a row cannot be read on its own; {save_as}")
    try:
        map_array(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: shorter than its header says ({error}), so truncated; write it again") from None
    return shape[0], shape[1]


def _read_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape of a `.npy` file, whether it is in Fortran order, and its dtype."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name an existing .npy file") from None
    except Exception as error:  # NumPy tokenizes, parses and evaluates headers: each stage has its own exceptions
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a .npy file ({reason}); write it with np.save") from None


def _same_num_items(
    files: Mapping[str, Path], shapes: Mapping[str, tuple[int, int]], num_items: int | None
) -> int | None:
    """Return N, on which the feature files and the caller must agree.

    Raises:
        InputError: they do not.
    """
    for modality, (rows, _) in shapes.items():
        if num_items is None:
            num_items = rows
        if rows != num_items:
            first = next(iter(shapes))
            other = (
                f"{files[first]} has {num_items}" if shapes[first][0] == num_items else f"--num-items is {num_items}"
            )
            raise InputError(
                f"{files[modality]}: has {rows} rows, {other}; row i of every file is item i, so give all files "
                "the same rows (all-zero where an item lacks the modality)"
            )
    return num_items


def _fingerprint(num_items: int, features: Mapping[str, Path], sequences: str | None) -> str:
    return files_digest(features.items(), f"arrays\0{num_items}\0{sequences}\0".encode())

"""Encodes one part of a table into one file, which is there completely or not at all.

WORK/encoded/00000042-<key>.parquet   row, vector, num_values; the key is a digest of the part, the encoder and all
                                      settings, so files of other encoders or inputs are never taken for it
WORK/problems/00000042-<key>.parquet  row, value, source, reason: texts and images without a vector
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.encoding.facts import label_of
from data.encoding.parts import Part
from data.encoding.request import Encoder, EncoderSpec, Several
from data.encoding.wording import one_line
from storage.durable_files import replacing
from storage.fingerprints import value_digest
from storage.parquet_files import parquet_is_whole

ENCODED, PROBLEMS = "encoded", "problems"
_BLOCK_VALUES = 1024  # images of which the bytes are in memory at a time
_SHOWN = 200  # characters of a path in the list of problems


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a process needs to encode parts. It is sent to every worker.

    Attributes:
        spec: the encoder.
        facts: what the encoder must say about itself; a worker whose model differs refuses to work.
        folder: the working folder; every worker sees it under this path.
        image_folder: the folder that relative paths of images start from.
        several: what becomes of several texts or images of a row.
        dtype: "float32" or "float16".
    """

    spec: EncoderSpec
    facts: Mapping[str, Any]
    folder: str
    image_folder: str | None
    several: Several
    dtype: str

    def key(self, part: Part) -> str:
        """Return the digest of all that decides the content of a part's file."""
        settings = [self.spec.settings(), dict(self.facts), self.image_folder, self.several, self.dtype]
        return value_digest([part.digest, settings])[:24]

    def vectors_file(self, part: Part) -> Path:
        return Path(self.folder) / ENCODED / f"{part.number:08d}-{self.key(part)}.parquet"

    def problems_file(self, part: Part) -> Path:
        return Path(self.folder) / PROBLEMS / f"{part.number:08d}-{self.key(part)}.parquet"

    def is_done(self, part: Part) -> bool:
        """Return whether both files of a part are there and whole; they are read to their ends."""
        return all(parquet_is_whole(file) for file in (self.problems_file(part), self.vectors_file(part)))

    def check(self, encoder: Encoder) -> None:
        """Raise InputError unless a worker's encoder is the one that the job began with."""
        if label_of(encoder.facts) != label_of(self.facts):
            raise InputError(
                f"--encoder {self.spec.name}: a worker has {label_of(encoder.facts)}, and the job began with "
                f"{label_of(self.facts)}; put the same model on every node"
            )


def encode_part(encoder: Encoder, work: Work, part: Part) -> None:
    """Encode a part and write its two files.

    The batches of a part follow from its content alone, so that its vectors do not depend on other parts or workers.

    Raises:
        InputError: the table cannot be read.
    """
    vectors: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    problems: list[tuple[int, int, str, str]] = []
    try:
        for block_rows, places, values in _blocks(part, Path(work.folder)):
            found, reasons = encoder.encode(values)
            found = _rounded(found, work.dtype, reasons)
            for index, reason in enumerate(reasons):
                if reason:
                    problems.append((int(block_rows[index]), int(places[index]), _shown(values[index]), reason))
            sound = np.array([not reason for reason in reasons], bool)
            vectors.append(found[sound])
            rows.append(block_rows[sound])
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{part.file or part.path(Path(work.folder))}: cannot be read ({one_line(error, 200)}); "
            "restore the file and repeat the command: finished parts are kept"
        ) from None
    owners = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    array = np.concatenate(vectors) if vectors else np.zeros((0, encoder.width), work.dtype)
    if work.several == "mean":
        owners, array, counts = mean_of_rows(owners, array)
    else:
        counts = np.ones(len(owners), np.int64)
    table = pa.table({"row": owners, "num_values": counts, "vector": _fixed(array)})
    _write(_problem_table(problems), work.problems_file(part))
    _write(table, work.vectors_file(part))


def _blocks(part: Part, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, list[Any]]]:
    """Yield rows, places in them and values. Texts and paths of a part are one block; bytes of images, many."""
    rows: list[int] = []
    places: list[int] = []
    values: list[Any] = []
    for row, found in part.values(folder):
        rows += [row] * len(found)
        places += range(len(found))
        values += found
        if part.file is not None and len(values) >= _BLOCK_VALUES:
            yield np.array(rows), np.array(places), values
            rows, places, values = [], [], []
    if values:
        yield np.array(rows), np.array(places), values


def mean_of_rows(owners: np.ndarray, array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row once, the mean of its vectors, and their number; equal rows are neighbours."""
    if not len(owners):
        return owners, array, np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    counts = np.diff(np.append(starts, len(owners)))
    sums = np.add.reduceat(array.astype(np.float64), starts, axis=0)
    return owners[starts], (sums / counts[:, None]).astype(array.dtype), counts


def _rounded(vectors: np.ndarray, dtype: str, reasons: list[str]) -> np.ndarray:
    """Return the vectors in the dtype of the output; say of what cannot be a feature why."""
    with np.errstate(over="ignore"):
        rounded = vectors.astype(dtype, copy=False)
    is_finite, is_zero = np.isfinite(rounded).all(axis=1), ~rounded.any(axis=1)
    for index in np.flatnonzero(~is_finite | is_zero):
        why = "a vector of zeros" if is_finite[index] else f"a vector that is not finite in {dtype}"
        reasons[index] = reasons[index] or why
    return rounded


def _shown(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value or "")[:_SHOWN]


def _fixed(array: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def _problem_table(problems: list[tuple[int, int, str, str]]) -> pa.Table:
    rows, places, sources, reasons = zip(*problems, strict=True) if problems else ((), (), (), ())
    kinds = {"row": pa.int64(), "value": pa.int64(), "source": pa.large_string(), "reason": pa.large_string()}
    columns = (rows, places, sources, reasons)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)], list(kinds))


def _write(table: pa.Table, file: Path) -> None:
    with replacing(file) as temporary:
        pq.write_table(table, temporary, compression="none", use_dictionary=False, write_page_checksum=True)

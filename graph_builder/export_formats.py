"""The file formats for exported edges: how to write each in bounded memory, and how to recognise it."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EDGES_AT_A_TIME = 1 << 20
_CSR_NAMES = ("indices", "indptr", "format", "shape", "data")
_EDGE_KEYS = {"edge_index", "edge_weight", "num_nodes"}
_PARQUET_SCHEMA = pa.schema([("source", pa.int64()), ("target", pa.int64()), ("weight", pa.float32())])


@dataclass(frozen=True)
class Edges:
    """Some consecutive edges: sources int64, ascending; targets int64; weights float32."""

    sources: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def _write_npz(edges: Callable[[], Iterator[Edges]], num_items: int, path: Path) -> int:
    """Write CSR as `scipy.sparse.save_npz` does, uncompressed: one array at a time, in two passes over the edges."""
    lengths = np.zeros(num_items, dtype=np.int64)
    for chunk in edges():
        first, last = (int(chunk.sources[0]), int(chunk.sources[-1])) if len(chunk.sources) else (0, -1)
        lengths[first : last + 1] += np.bincount(chunk.sources - first, minlength=last - first + 1)
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    count = int(indptr[-1])
    # SciPy's choice: int32 if all values fit.
    index_type = np.int32 if max(count, num_items) < 2**31 else np.int64
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        tempfile.TemporaryFile(dir=path.parent) as later,
    ):
        with _npy_member(archive, "indices", np.dtype(index_type), count) as member:
            for chunk in _sorted_rows(edges()):
                member.write(chunk.targets.astype(index_type).data)
                later.write(chunk.weights.data)
        later.seek(0)
        with _npy_member(archive, "data", np.dtype(np.float32), count) as member:
            while block := later.read(4 * EDGES_AT_A_TIME):
                member.write(block)
        small = {"indptr": indptr.astype(index_type), "format": np.array(b"csr"), "shape": np.array([num_items] * 2)}
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return count


@contextlib.contextmanager
def _npy_member(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], count: int) -> Iterator[IO[bytes]]:
    """Open a one-dimensional `.npy` member of an archive and write its header; the caller writes the values."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, description)
        yield member


def _sorted_rows(chunks: Iterator[Edges]) -> Iterator[Edges]:
    """Sort the targets of each source. (Chunks of neighbours hold whole rows, and O's targets already ascend.)"""
    for chunk in chunks:
        order = np.lexsort((chunk.targets, chunk.sources))
        yield Edges(chunk.sources, chunk.targets[order], chunk.weights[order])


def _write_parquet(edges: Callable[[], Iterator[Edges]], num_items: int, path: Path) -> int:
    count = 0
    schema = _PARQUET_SCHEMA.with_metadata({"num_items": str(num_items)})
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in edges():
            columns = [pa.array(column) for column in (chunk.sources, chunk.targets, chunk.weights)]
            writer.write_table(pa.table(columns, schema=schema))
            count += len(chunk.sources)
    return count


def _write_edge_index(edges: Callable[[], Iterator[Edges]], num_items: int, path: Path) -> int:
    """Write tensors that are backed by mapped files, so that `torch.save` copies from disk to disk."""
    import torch

    with contextlib.ExitStack() as stack:
        columns = [stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for _ in range(3)]
        count = 0
        for chunk in edges():
            for file, column in zip(columns, (chunk.sources, chunk.targets, chunk.weights), strict=True):
                file.write(column.data)
            count += len(chunk.sources)
        sources, targets, weights = columns
        # One file with both rows: the targets follow the sources.
        targets.seek(0)
        while block := targets.read(8 * EDGES_AT_A_TIME):
            sources.write(block)
        edge_index = _mapped(sources, np.dtype(np.int64), (2, count))
        edge_weight = _mapped(weights, np.dtype(np.float32), (count,))
        content = {
            "edge_index": torch.from_numpy(edge_index),
            "edge_weight": torch.from_numpy(edge_weight),
            "num_nodes": num_items,
        }
        torch.save(content, path)
    return count


def _mapped(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    file.flush()
    # Mode "c" (copy on write), because torch requires writable memory; nothing is written to it.
    return np.memmap(file, dtype=dtype, mode="c", shape=shape) if 0 not in shape else np.empty(shape, dtype=dtype)


def _is_npz(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist()) == {f"{name}.npy" for name in _CSR_NAMES}


def _is_parquet(path: Path) -> bool:
    try:
        return bool(pq.read_schema(path).remove_metadata() == _PARQUET_SCHEMA)
    except (pa.ArrowException, OSError):
        return False


def _is_edge_index(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    import torch

    try:
        content = torch.load(path, mmap=True, weights_only=True)
    except Exception:  # then it is not a file of plain tensors that torch.save wrote
        return False
    return isinstance(content, dict) and content.keys() == _EDGE_KEYS


@dataclass(frozen=True)
class _Kind:
    """A format: a function that writes it (edges, N, path -> number of edges), and one that recognises its files."""

    write: Callable[[Callable[[], Iterator[Edges]], int, Path], int]
    recognises: Callable[[Path], bool]


KINDS = {
    "npz": _Kind(_write_npz, _is_npz),
    "parquet": _Kind(_write_parquet, _is_parquet),
    "edge_index": _Kind(_write_edge_index, _is_edge_index),
}

"""A finished graph as files that other libraries read: SciPy, Parquet, PyTorch Geometric.

Every edge goes from an item to one of its entries: O's row and column, or an item and its neighbour, with
O's normalised weight or the cosine. Sources ascend; the targets of an item are as the graph has them
(O: ascending ids; neighbours: best first), but ascending in CSR. Left out: padding, and rows of items that
lack the modality. An item that is its own neighbour keeps that edge.

Memory: under 200 MB whatever the number of edges, and 24 bytes per item for CSR, beside mapped pages that
the system takes back when it needs them. The edges pass in pieces; what a format wants in one piece goes
through unnamed files beside the output (28 bytes an edge at most).
"""

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

from contracts.errors import InputError
from graph_builder.store import Graph
from graph_builder.work import num_row_blocks, row_range
from storage.array_file import map_array
from storage.durable_files import replacing

_EDGES_AT_A_TIME = 1 << 20
_NEIGHBORS = "neighbors:"
_CSR_NAMES = ("indices", "indptr", "format", "shape", "data")
_EDGE_KEYS = {"edge_index", "edge_weight", "num_nodes"}
_PARQUET_SCHEMA = pa.schema([("source", pa.int64()), ("target", pa.int64()), ("weight", pa.float32())])


@dataclass(frozen=True)
class Edges:
    """Some consecutive edges: sources int64, ascending; targets int64; weights float32."""

    sources: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def export(graph: Graph, what: str, to: str, output: Path, overwrite: bool = False) -> int:
    """Write `what` of a graph to the file `output`; returns the number of edges.

    Args:
        what: "cooccurrence" or "neighbors:<modality>".
        to: "npz": `scipy.sparse.load_npz` gives a CSR matrix [N, N] float32. "parquet": columns source, target
            (int64), weight (float32). "edge_index": `torch.load` gives {"edge_index": int64 [2, E],
            "edge_weight": float32 [E], "num_nodes": N}, the keywords of torch_geometric's Data. Its layers
            pass messages from source to target: to collect an item's neighbours *at* the item, flip
            edge_index or choose flow="target_to_source".
        overwrite: replace `output` if it is such a file; anything else there is never touched.

    Raises:
        InputError: no such modality, an output that may not be written, or a disk that refuses.
    """
    kind = KINDS[to]
    check_output(graph, output, to, overwrite)
    edges = _edges_of(graph, what)
    try:
        with replacing(output) as temporary:
            return kind.write(edges, graph.num_items, temporary)
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be written ({error.strerror or error}); free space or change permissions"
        ) from None


def check_output(graph: Graph, output: Path, to: str, overwrite: bool) -> None:
    """Whether the file may be written.

    Raises:
        InputError: it may not.
    """
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist; create it first")
    if graph.path.resolve() in output.resolve().parents:
        raise InputError(f"--output {output}: lies in the graph's own folder; name a file outside of it")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise InputError(f"--output {output}: exists and is not a plain file; name another file")
    if not output.exists():
        return
    if not KINDS[to].recognises(output):
        raise InputError(
            f"--output {output}: exists and is not a file that --to {to} writes, so it is never replaced; name another"
        )
    if not overwrite:
        raise InputError(f"--output {output}: exists; name another file or add --overwrite")


def _edges_of(graph: Graph, what: str) -> Callable[[], Iterator[Edges]]:
    """What gives the edges, in pieces, as often as it is called."""
    if what == "cooccurrence":
        return lambda: _cooccurrence_edges(graph)
    modality = what.removeprefix(_NEIGHBORS)
    if what.startswith(_NEIGHBORS) and modality in graph.modalities:
        return lambda: _neighbor_edges(graph, modality)
    known = ", ".join(["cooccurrence", *(_NEIGHBORS + m for m in graph.modalities)])
    raise InputError(f"--what {what}: graph {graph.path} has {known}; name one of these")


def _cooccurrence_edges(graph: Graph) -> Iterator[Edges]:
    """O's entries from its blocks as they are mapped (the layout is `row_blocks`'s)."""
    block_rows = graph.manifest["cooccurrence"]["block_rows"]
    for block in range(num_row_blocks(block_rows, graph.num_items)):
        stem = graph.path / "cooccurrence" / f"block-{block:05d}"
        indptr, indices, weights = (
            map_array(stem.with_suffix(f".{name}.npy")) for name in ("indptr", "indices", "weights")
        )
        first_row = row_range(block, block_rows, graph.num_items).start
        for begin in range(0, len(indices), _EDGES_AT_A_TIME):
            end = min(begin + _EDGES_AT_A_TIME, len(indices))
            # Rows that overlap [begin, end), and how many of their entries do.
            first, last = np.searchsorted(indptr, [begin, end - 1], side="right") - 1
            bounds = np.clip(indptr[first : last + 2], begin, end)
            sources = np.repeat(first_row + np.arange(first, last + 1), np.diff(bounds))
            yield Edges(sources, np.array(indices[begin:end]), np.array(weights[begin:end]))


def _neighbor_edges(graph: Graph, modality: str) -> Iterator[Edges]:
    ids, scores, clusters = graph.neighbors(modality), graph.neighbor_scores(modality), graph.clusters(modality)
    rows = max(1, _EDGES_AT_A_TIME // ids.shape[1])
    for first in range(0, len(ids), rows):
        targets = np.asarray(ids[first : first + rows])
        # A missing item's row is itself; clusters know which items are missing.
        kept = (targets >= 0) & (np.asarray(clusters[first : first + rows]) >= 0)[:, None]
        sources = first + np.repeat(np.arange(len(targets)), kept.sum(axis=1))
        yield Edges(sources, targets[kept], np.asarray(scores[first : first + rows])[kept])


def _write_npz(edges: Callable[[], Iterator[Edges]], num_items: int, path: Path) -> int:
    """CSR as `scipy.sparse.save_npz` writes it, uncompressed: an array at a time, in two passes over the edges."""
    lengths = np.zeros(num_items, dtype=np.int64)
    for piece in edges():
        first, last = (int(piece.sources[0]), int(piece.sources[-1])) if len(piece.sources) else (0, -1)
        lengths[first : last + 1] += np.bincount(piece.sources - first, minlength=last - first + 1)
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    count = int(indptr[-1])
    # As SciPy chooses it: int32 where everything fits.
    index_type = np.int32 if max(count, num_items) < 2**31 else np.int64
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        tempfile.TemporaryFile(dir=path.parent) as later,
    ):
        with _npy_member(archive, "indices", np.dtype(index_type), count) as member:
            for piece in _sorted_rows(edges()):
                member.write(piece.targets.astype(index_type).data)
                later.write(piece.weights.data)
        later.seek(0)
        with _npy_member(archive, "data", np.dtype(np.float32), count) as member:
            while block := later.read(4 * _EDGES_AT_A_TIME):
                member.write(block)
        small = {"indptr": indptr.astype(index_type), "format": np.array(b"csr"), "shape": np.array([num_items] * 2)}
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return count


@contextlib.contextmanager
def _npy_member(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], count: int) -> Iterator[IO[bytes]]:
    """A one-dimensional `.npy` inside an archive, whose values are then written."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, description)
        yield member


def _sorted_rows(pieces: Iterator[Edges]) -> Iterator[Edges]:
    """The same edges, targets ascending within their source (pieces of neighbours hold whole rows)."""
    for piece in pieces:
        order = np.lexsort((piece.targets, piece.sources))
        yield Edges(piece.sources, piece.targets[order], piece.weights[order])


def _write_parquet(edges: Callable[[], Iterator[Edges]], num_items: int, path: Path) -> int:
    count = 0
    schema = _PARQUET_SCHEMA.with_metadata({"num_items": str(num_items)})
    with pq.ParquetWriter(path, schema) as writer:
        for piece in edges():
            columns = [pa.array(column) for column in (piece.sources, piece.targets, piece.weights)]
            writer.write_table(pa.table(columns, schema=schema))
            count += len(piece.sources)
    return count


def _write_edge_index(edges: Callable[[], Iterator[Edges]], num_items: int, path: Path) -> int:
    """Tensors over mapped files, from which `torch.save` copies straight into the archive."""
    import torch

    with contextlib.ExitStack() as stack:
        columns = [stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for _ in range(3)]
        count = 0
        for piece in edges():
            for file, column in zip(columns, (piece.sources, piece.targets, piece.weights), strict=True):
                file.write(column.data)
            count += len(piece.sources)
        sources, targets, weights = columns
        # One file with both rows: the targets follow the sources.
        targets.seek(0)
        while block := targets.read(8 * _EDGES_AT_A_TIME):
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
    # "c": torch wants writable memory; nothing is written.
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
    except Exception:  # whatever it is, torch.save did not write it from plain tensors
        return False
    return isinstance(content, dict) and content.keys() == _EDGE_KEYS


@dataclass(frozen=True)
class _Kind:
    """A format: how it is written (edges, N, path -> number of edges), and whether a file is of it."""

    write: Callable[[Callable[[], Iterator[Edges]], int, Path], int]
    recognises: Callable[[Path], bool]


KINDS = {
    "npz": _Kind(_write_npz, _is_npz),
    "parquet": _Kind(_write_parquet, _is_parquet),
    "edge_index": _Kind(_write_edge_index, _is_edge_index),
}

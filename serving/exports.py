"""Writes the vectors of a run's items or users, with their ids, to files that other programs read.

Memory: a block of vectors at a time, beside the run itself.

n: vectors, D: width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from distributed.telemetry import Track, unwatched
from serving.predictor import Predictor
from storage.durable_files import replacing


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """n vectors in blocks.

    Attributes:
        kind: "item" or "user", the name of the column of ids.
        count: n.
        width: D.
        ids: the source ids of vectors first .. stop - 1.
        blocks: yields float32 [b, D], one block after the other.
        num_blocks: how many blocks it yields.
    """

    kind: str
    count: int
    width: int
    ids: Callable[[int, int], pa.Array]
    blocks: Callable[[], Iterator[np.ndarray]]
    num_blocks: int


def item_vectors(predictor: Predictor) -> Vectors:
    """Return the vectors of all items by dense id. Blocks are computed one at a time, and not kept."""
    names = predictor.ranking.scorer.inputs.dataset.item_source_ids()

    def blocks() -> Iterator[np.ndarray]:
        with predictor.serving():
            for block in predictor.ranking.streamed_blocks().pass_over():
                yield block.vectors.cpu().numpy()

    return Vectors(
        kind="item",
        count=predictor.num_items,
        width=predictor.ranking.width,
        ids=lambda first, stop: names.slice(first, stop - first),
        blocks=blocks,
        num_blocks=-(-predictor.num_items // predictor.config.evaluation.item_block),
    )


def user_vectors(predictor: Predictor) -> Vectors:
    """Return the vectors of all users of the run's dataset, each after the user's whole sequence."""
    ranking = predictor.ranking
    dataset = ranking.scorer.inputs.dataset
    names, lengths = dataset.user_source_ids(), np.diff(dataset.offsets)
    known = np.flatnonzero(lengths > 0)
    kept = names.take(pa.array(known))

    def blocks() -> Iterator[np.ndarray]:
        with predictor.serving():
            for group in ranking.scorer.groups(known, lengths[known], False, ranking.blocks, lambda: None):
                yield from (batch.vectors.cpu().numpy() for batch in group)

    return Vectors(
        kind="user",
        count=len(known),
        width=ranking.width,
        ids=lambda first, stop: kept.slice(first, stop - first),
        blocks=blocks,
        num_blocks=-(-len(known) // predictor.config.evaluation.user_batch),
    )


def write_parquet(vectors: Vectors, path: Path, track: Track = unwatched) -> None:
    """Write columns item or user (source id, string) and vector (a list of D float32)."""
    schema = pa.schema([(vectors.kind, pa.string()), ("vector", pa.list_(pa.float32(), vectors.width))])
    first = 0
    with replacing(path, one_writer=True) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for block in track(vectors.blocks(), vectors.num_blocks, f"writing {vectors.kind} vectors"):
            ids = vectors.ids(first, first + len(block)).cast(pa.string())
            flat = pa.array(np.ascontiguousarray(block, dtype=np.float32).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, vectors.width)
            writer.write_table(pa.table({vectors.kind: ids, "vector": column}, schema=schema))
            first += len(block)
        assert first == vectors.count


def write_npy(vectors: Vectors, path: Path, track: Track = unwatched) -> None:
    """Write a float32 array [n, D] for np.load, and beside it `ids_path(path)` with the source id of each row.

    The ids are written first, so an array is never there without its ids.
    """
    first, step = 0, 1 << 16
    schema = pa.schema([("row", pa.int64()), (vectors.kind, pa.string())])
    with replacing(ids_path(path), one_writer=True) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for first in range(0, vectors.count, step):
            stop = min(first + step, vectors.count)
            ids = vectors.ids(first, stop).cast(pa.string())
            writer.write_table(pa.table({"row": np.arange(first, stop), vectors.kind: ids}, schema=schema))
    done = 0
    with replacing(path, one_writer=True) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (vectors.count, vectors.width)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in track(vectors.blocks(), vectors.num_blocks, f"writing {vectors.kind} vectors"):
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
            done += len(block)
        assert done == vectors.count


def ids_path(path: Path) -> Path:
    """Return the Parquet file that has the ids of an array's rows: vectors.npy has vectors.ids.parquet."""
    return path.with_name(f"{path.stem}.ids.parquet")


def is_vector_table(path: Path) -> bool:
    """Return whether a file is one that `write_parquet` writes."""
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return False
    return names in (["item", "vector"], ["user", "vector"])


def is_vector_array(path: Path) -> bool:
    """Return whether a file is one that `write_npy` writes: an array of float32 with its ids beside it."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        names = pq.read_schema(ids_path(path)).names
    except (pa.ArrowException, OSError, ValueError):
        return False
    return len(shape) == 2 and dtype == np.float32 and names in (["row", "item"], ["row", "user"])


def not_written(error: OSError, path: Path) -> InputError:
    """Return the error for a file that could not be written."""
    return InputError(
        f"--output {path}: cannot be written ({error.strerror or error}); free space or change permissions"
    )

"""Joins the files of the parts into the finished folder that `encoded_folder` describes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.encoding.encoded_folder import (
    BLOCK_ROWS,
    FITTED,
    ITEMS,
    KIND,
    LIST_OFFSETS,
    LIST_VECTORS,
    PROBLEMS,
    VECTORS,
    VERSION,
    EarlierItems,
)
from data.encoding.part_work import Work, mean_of_rows
from data.encoding.parts import Part
from storage.durable_files import replacing_folder
from storage.fingerprints import files_digest
from storage.manifest import MANIFEST

_FILES = (VECTORS, ITEMS, PROBLEMS, LIST_VECTORS, LIST_OFFSETS, FITTED)


class NothingEncoded(InputError):
    """The error for a table of which no text or image has a vector."""


def write_encoded(
    output: Path, work: Work, parts: Sequence[Part], source: Mapping[str, Any], earlier: EarlierItems | None = None
) -> dict[str, Any]:
    """Join the files of the parts into the finished folder, and return its manifest.

    Memory: the ids of all items, one part, and the pages of the memory-mapped vectors.

    Args:
        output: the folder to write.
        work: how the parts were encoded.
        parts: all parts.
        source: what the manifest says about the table.
        earlier: items that come before those of the parts, which must be others; None: none.

    Raises:
        NothingEncoded: no item has a vector.
    """
    input_folder = Path(work.folder)
    codes, items, first_row = _numbered(parts, input_folder)
    num_earlier = len(earlier.items) if earlier else 0
    if earlier:
        codes, items = codes + num_earlier, pa.chunked_array([earlier.items, items]).combine_chunks()
    num_items, width = len(items), int(work.facts["width"])
    reasons: Counter[str] = Counter()
    with replacing_folder(output, one_writer=True) as folder:
        counts = _write_means(folder, work, parts, codes, first_row, (num_items, width))
        if earlier:
            counts[:num_earlier] = earlier.copy_to(folder / VECTORS)
        if not counts.any():
            raise NothingEncoded(_all_broken(work, parts, items[0].as_py()))
        if work.several == "list":
            _write_lists(folder, work, parts, codes, first_row, counts)
        pq.write_table(pa.table({"item": items, "num_values": counts}), folder / ITEMS)
        _write_problems(folder / PROBLEMS, _problems(work, parts, input_folder, earlier), reasons)
        if work.spec.fitted:
            shutil.copyfile(work.spec.fitted, folder / FITTED)
        manifest = {
            "kind": KIND,
            "schema_version": VERSION,
            "encoder": dict(work.facts),
            "several": work.several,
            "dtype": work.dtype,
            "num_items": num_items,
            "num_with_vector": int((counts > 0).sum()),
            "num_values": int(counts.sum()),
            "num_problems": sum(reasons.values()),
            "problems": dict(sorted(reasons.items())),
            "modalities": {},
            "source": dict(source),
        }
        present = [(name, folder / name) for name in _FILES if (folder / name).exists()]
        manifest["fingerprint"] = files_digest(present)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _numbered(parts: Sequence[Part], folder: Path) -> tuple[np.ndarray, pa.Array, np.ndarray]:
    """Return the item of each row, int64; the ids in order of first appearance; and the first row of each part."""
    ids = pa.chunked_array([part.items(folder) for part in parts], pa.large_string())
    first_row = np.concatenate([[0], np.cumsum([part.num_rows for part in parts])])
    unique = pc.unique(ids)
    if len(unique) == len(ids):
        return np.arange(len(ids)), unique, first_row
    return pc.index_in(ids, value_set=unique).to_numpy().astype(np.int64), unique, first_row


def _read(work: Work, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, numbers of values, and vectors of a part's file."""
    table = pq.read_table(work.vectors_file(part))
    vectors = table.column("vector").combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return (
        table.column("row").to_numpy(),
        table.column("num_values").to_numpy(),
        flat.reshape(len(vectors), vectors.type.list_size),
    )


def _write_means(
    folder: Path,
    work: Work,
    parts: Sequence[Part],
    codes: np.ndarray,
    first_row: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """Write the mean vector of each item; return the number of its vectors, int64 [N].

    An item of several rows gets the mean of all its texts or images, summed in float64 in the order of the table.
    """
    counts = np.zeros(shape[0], np.int64)
    is_repeated = np.bincount(codes, minlength=shape[0]) > 1
    repeated = np.flatnonzero(is_repeated)
    means = np.lib.format.open_memmap(folder / VECTORS, "w+", work.dtype, shape)
    scratch = Path(work.folder) / "sums.npy"  # on disk, since every item might have several rows
    sums = np.lib.format.open_memmap(scratch, "w+", np.float64, (len(repeated), shape[1])) if len(repeated) else None
    for part, start in zip(parts, first_row, strict=False):
        rows, numbers, vectors = _means_of(work, part)
        items = codes[start + rows]
        np.add.at(counts, items, numbers)
        alone = ~is_repeated[items]
        means[items[alone]] = vectors[alone]
        if sums is not None:
            weighted = vectors[~alone].astype(np.float64) * numbers[~alone, None]
            np.add.at(sums, np.searchsorted(repeated, items[~alone]), weighted)
    if sums is not None:
        for first in range(0, len(repeated), BLOCK_ROWS):
            items = repeated[first : first + BLOCK_ROWS]
            means[items] = (sums[first : first + BLOCK_ROWS] / np.maximum(counts[items], 1)[:, None]).astype(work.dtype)
        del sums
        scratch.unlink()
    means.flush()
    return counts


def _means_of(work: Work, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, numbers, vectors = _read(work, part)
    if work.several == "mean":
        return rows, numbers, vectors
    rows, vectors, numbers = mean_of_rows(rows, vectors)
    return rows, numbers, vectors


def _write_lists(
    folder: Path,
    work: Work,
    parts: Sequence[Part],
    codes: np.ndarray,
    first_row: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Write every vector, the vectors of an item together, in the order of the table."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    np.save(folder / LIST_OFFSETS, offsets)
    shape = (int(offsets[-1]), int(work.facts["width"]))
    lists = np.lib.format.open_memmap(folder / LIST_VECTORS, "w+", work.dtype, shape)
    following = offsets[:-1].copy()
    for part, start in zip(parts, first_row, strict=False):
        rows, _, vectors = _read(work, part)
        items = codes[start + rows]
        order = np.argsort(items, kind="stable")
        of_order = items[order]
        starts = np.flatnonzero(np.concatenate([[True], of_order[1:] != of_order[:-1]])) if len(order) else order
        numbers = np.diff(np.append(starts, len(order)))
        within = np.arange(len(order)) - np.repeat(starts, numbers)
        lists[following[of_order] + within] = vectors[order]
        following[of_order[starts]] += numbers
    lists.flush()


def _problems(work: Work, parts: Sequence[Part], folder: Path, earlier: EarlierItems | None) -> Iterator[pa.Table]:
    if earlier:
        yield earlier.problems
    for part in parts:
        table = pq.read_table(work.problems_file(part))
        if len(table):
            items = part.items(folder).take(table.column("row"))
            yield table.drop_columns(["row"]).add_column(0, "item", items)


def _write_problems(file: Path, problems: Iterable[pa.Table], reasons: Counter[str]) -> None:
    names = ("item", "value", "source", "reason")
    schema = pa.schema({name: pa.int64() if name == "value" else pa.large_string() for name in names})
    with pq.ParquetWriter(file, schema) as writer:
        for table in problems:
            writer.write_table(table.cast(schema))
            found = pc.value_counts(table.column("reason").combine_chunks())
            for pair in found:
                # The kind of a reason is what comes before its details.
                reasons[pair["values"].as_py().partition(":")[0]] += pair["counts"].as_py()


def _all_broken(work: Work, parts: Sequence[Part], item: str) -> str:
    what = {"text": "texts", "image": "images"}[work.spec.modality]
    check = f"check --{work.spec.modality}-column" + (", and --image-folder" if work.image_folder else "")
    reasons: Counter[str] = Counter()
    for table in _problems(work, parts, Path(work.folder), None):
        reasons.update(table.column("reason").to_pylist())
    if reasons.keys() <= {"no text", "no image"} and reasons.total() > 1:
        return f"all {reasons.total():,} {what} are empty; {check}"
    for table in _problems(work, parts, Path(work.folder), None):
        first = table.slice(0, 1).to_pylist()[0]
        folder = f" in {work.image_folder}" if work.image_folder else ""
        return (
            f"none of the {what} has a vector: item {first['item']!r} ({first['source'][:80]!r}{folder}): "
            f"{first['reason']}; {check}"
        )
    return f"none of the {what} has a vector, not even of item {item!r}; check the table"

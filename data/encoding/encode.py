"""Encodes a table of items, in the order of its steps; continues where it was interrupted.

1. The table is divided into parts (`parts.plan_parts`), in the folder OUTPUT.parts beside the output.
2. TF-IDF is fitted, if it is the encoder.
3. Every part is encoded into a file of its own (`part_work.encode_part`), here or on a cluster.
4. The files are joined into OUTPUT (`joining.write_encoded`), and OUTPUT.parts is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.encoding.encoded_folder import FITTED, SCHEMA, EarlierItems, is_encoded_folder
from data.encoding.encoders import TFIDF, check_spec, open_encoder
from data.encoding.item_table import ItemTable
from data.encoding.joining import NothingEncoded, write_encoded
from data.encoding.part_work import Work
from data.encoding.parts import Part, plan_parts
from data.encoding.request import Encoder, EncoderSpec, Several
from data.encoding.reuse import check_reuse, check_same_encoder
from data.encoding.tfidf import PartCounts, fit
from data.encoding.workers import Places, count_texts, encode_here
from storage.fingerprints import value_digest
from storage.manifest import MANIFEST, read_manifest

Item = TypeVar("Item")
# Shows a loop's progress: the loop, the number of its turns, and a label.
Track = Callable[[Iterable[Item], int, str], Iterable[Item]]


class OnCluster(Protocol):
    """The functions of `ray_parts`, which this module does not import, so that it runs without Ray."""

    def encode_on_ray(self, work: Work, parts: Sequence[Part], places: Places) -> Iterator[None]: ...
    def count_on_ray(
        self, work_folder: Path, parts: Sequence[tuple[Part, list[int]]], places: Places
    ) -> Iterator[PartCounts]: ...


@dataclass(frozen=True, kw_only=True)
class EncodingJob:
    """What is encoded, how, and where to.

    Attributes:
        table: the table of items.
        spec: the encoder.
        output: the folder to write.
        image_folder: the folder that relative paths of images start from.
        several: what becomes of several texts or images of an item.
        dtype: "float32" or "float16".
        rows_per_part: rows of the table that become one file; finished files are kept.
        only: source ids of the items that are encoded; None: all of the table.
        reuse: an earlier output with the same encoder; items that have a vector there are not encoded again.
    """

    table: ItemTable
    spec: EncoderSpec
    output: Path
    image_folder: Path | None = None
    several: Several = "mean"
    dtype: str = "float32"
    rows_per_part: int = 4096
    only: pa.Array | None = None
    reuse: Path | None = None

    @property
    def work(self) -> Path:
        """The working folder, which every worker sees under this path."""
        return self.output.with_name(f"{self.output.name}.parts")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done: the finished folder's manifest, and how many parts were encoded now and before."""

    manifest: dict[str, Any]
    num_parts: int
    num_kept: int


def encode_items(
    job: EncodingJob, places: Places, *, overwrite: bool, track: Track[Any], cluster: OnCluster | None = None
) -> Outcome:
    """Encode the items and write the folder. Repeating an interrupted call continues it.

    Args:
        job: what is encoded.
        places: the workers.
        overwrite: whether an earlier output is replaced, once the new one is complete.
        track: shows progress.
        cluster: the functions that work on a connected Ray cluster; None: everything is done in this process.

    Raises:
        InputError: a wrong table, encoder or output; or no item has a vector. Finished parts are kept.
    """
    check_job(job, overwrite)
    is_new = not job.work.exists()
    job.work.mkdir(exist_ok=True)
    try:
        return _encode(job, places, track, cluster)
    except NothingEncoded:  # the files may be there the next time, so nothing is kept
        shutil.rmtree(job.work)
        raise
    except InputError:
        if is_new and not any(job.work.glob("encoded/*")):  # a table that is wrong leaves nothing behind
            shutil.rmtree(job.work)
        raise
    except OSError as error:
        raise InputError(
            f"--output {job.output}: cannot be written ({error.filename or job.work}: {error.strerror or error}); "
            "finished parts are kept: free space or change permissions, and repeat the command"
        ) from None


def _encode(job: EncodingJob, places: Places, track: Track[Any], cluster: OnCluster | None) -> Outcome:
    earlier = EarlierItems.open(job.reuse) if job.reuse else None
    only, chosen = _chosen(job.only, earlier)
    parts = plan_parts(job.table, job.work, job.rows_per_part, only, chosen, may_be_none=earlier is not None)
    spec = job.spec
    if spec.name == TFIDF and earlier is not None:
        spec = replace(spec, fitted=str(earlier.folder / FITTED))
    elif spec.name == TFIDF:
        spec = replace(spec, fitted=str(_fitted(job, parts, places, track, cluster)))
    encoder = open_encoder(spec, places.device if cluster is None else "cpu", job.image_folder)
    work = Work(
        spec=spec,
        facts=encoder.facts,
        folder=str(job.work),
        image_folder=str(job.image_folder) if job.image_folder else None,
        several=job.several,
        dtype=job.dtype,
    )
    if earlier is not None:
        check_same_encoder(earlier, encoder.facts)
    missing = [part for part in parts if not work.is_done(part)]
    if len(missing) < len(parts):
        print(f"continuing: {len(parts) - len(missing):,} of {len(parts):,} parts are there", flush=True)
    if missing:
        done = _run(encoder, work, missing, places, cluster)
        for _ in track(done, len(missing), "parts"):
            pass
    source = {
        "path": job.table.path,
        "item_column": job.table.item_column,
        "columns": list(job.table.columns),
        "image_folder": work.image_folder,
    }
    manifest = write_encoded(job.output, work, parts, source, earlier)
    shutil.rmtree(job.work)
    return Outcome(manifest=manifest, num_parts=len(parts), num_kept=len(parts) - len(missing))


def _chosen(wanted: pa.Array | None, earlier: EarlierItems | None) -> tuple[Callable[[pa.Array], pa.Array] | None, str]:
    """Return which ids are encoded, None for all, and what identifies the choice."""
    if wanted is None and earlier is None:
        return None, ""
    done = earlier.items if earlier is not None else pa.array([], pa.large_string())

    def only(ids: pa.Array) -> pa.Array:
        is_new = pc.invert(pc.is_in(ids, value_set=done))
        return is_new if wanted is None else pc.and_(is_new, pc.is_in(ids, value_set=wanted))

    fingerprint = earlier.manifest["fingerprint"] if earlier is not None else ""
    return only, value_digest([wanted.to_pylist() if wanted is not None else None, fingerprint])


def _run(
    encoder: Encoder, work: Work, missing: Sequence[Part], places: Places, cluster: OnCluster | None
) -> Iterator[None]:
    if cluster is None:
        return encode_here(encoder, work, missing, places)
    return cluster.encode_on_ray(work, missing, places)


def _fitted(
    job: EncodingJob, parts: Sequence[Part], places: Places, track: Track[Any], cluster: OnCluster | None
) -> Path:
    """Return the file with what TF-IDF has learned, after fitting it unless that was done before."""
    spec = job.spec
    key = value_digest([[part.digest for part in parts], spec.settings()])[:24]
    file = job.work / f"tfidf-{key}.safetensors"
    if not file.exists():
        sampled = [(part, rows) for part, rows in zip(parts, _evenly(parts, spec.fit_texts), strict=True)]
        if cluster is None:
            counts: Iterator[PartCounts] = (count_texts(job.work, part, rows) for part, rows in sampled)
        else:
            counts = cluster.count_on_ray(job.work, sampled, places)
        fit(track(counts, len(parts), "parts counted"), spec.width, file)
    return file


def _evenly(parts: Sequence[Part], most: int) -> list[list[int]]:
    """Return rows of each part: about `most` in all, evenly spaced over the table."""
    total = sum(part.num_rows for part in parts)
    every = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.int64))
    starts = np.concatenate([[0], np.cumsum([part.num_rows for part in parts])])
    bounds = np.searchsorted(every, starts)
    return [(every[bounds[i] : bounds[i + 1]] - starts[i]).tolist() for i in range(len(parts))]


def check_job(job: EncodingJob, overwrite: bool) -> None:
    """Check what takes no time, before a cluster is joined.

    Raises:
        InputError: there is no such table or encoder, the output may not be written, or what would be reused differs.
    """
    check_spec(job.spec)
    check_output(job.output, overwrite)
    job.table.files()
    if job.reuse is not None:
        check_reuse(job.reuse, job.spec, job.several, job.dtype)


def check_output(output: Path, overwrite: bool) -> None:
    """Check that the output may be written. Only a folder of this job may be replaced.

    Raises:
        InputError: it may not.
    """
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: the folder that it is in does not exist; create that first")
    if not output.exists() and not output.is_symlink():
        return
    if output.is_symlink() or not output.is_dir() or (any(output.iterdir()) and not is_encoded_folder(output)):
        raise InputError(f"--output {output}: exists and holds no encoded items, so it is never replaced; name another")
    if any(output.iterdir()) and not overwrite:
        raise InputError(f"--output {output}: exists; name another folder or add --overwrite")
    if (output / MANIFEST).exists():
        read_manifest(output, SCHEMA)

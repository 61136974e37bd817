"""Builds an index in bounded memory: item vectors come in blocks, and one shard is in memory at a time.

Shards are written one after the other, each under a temporary name that is then renamed, and the manifest is written
last. So a build that was killed leaves a folder that does not open. If the next build is of the same options and of
the same run, it keeps the shards that are finished.

Memory: one block, one shard (4 D bytes an item, and 8 M more for hnsw; D / code_width and 8 bytes for ivfpq), and for
the clustered kinds the sample that they learn from (4 D bytes an item) while they learn. faiss grows its arrays by
doubling, so that for a moment a shard may take up to twice its size.

N: items, D: width of a vector.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import InputError
from serving.index.blocks import Blocks, vectors_in
from serving.index.kinds import CLUSTERED, IndexOptions, empty_index, load_faiss
from serving.index.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    IndexManifest,
    Shard,
    ShardFile,
    damaged_shards,
    read_manifest,
    shard_file,
)
from storage.durable_files import is_temporary, replacing, write_text
from storage.fingerprints import file_digest, value_digest
from storage.plain_json import json_text

SHARD_ITEMS = 1 << 20
log = logging.getLogger(__name__)
_OWN_NAMES = re.compile(r"shard-\d+(-part-\d+\.faiss|\.json)|trained-part-\d+\.faiss")


def build_index(
    blocks: Blocks,
    path: str | Path,
    *,
    num_items: int,
    widths: Sequence[int],
    options: IndexOptions | None = None,
    shard_items: int = SHARD_ITEMS,
    belongs_to: Mapping[str, str] | None = None,
) -> IndexManifest:
    """Write an index of item vectors to a folder and return its manifest.

    A finished index of the same plan is kept, and those of its shards that are damaged are written again.

    Every block is read once; for the clustered kinds twice, because a sample of all items is read first.

    Args:
        blocks: reads the vectors.
        path: the folder. It is created; it may hold what a killed build left.
        num_items: N.
        widths: the columns of each part that is searched by itself: [D] for scores that are inner products, and the
            width of each channel for scores that a fusion computes from those of channels.
        options: the kind of the index and its options; None: exact.
        shard_items: most items of a shard.
        belongs_to: names what the vectors were computed from, such as the run and the step of its checkpoint. Without
            it, nothing of a killed build is kept.

    Raises:
        InputError: faiss is missing, an option is out of range, the folder holds another finished index or anything
            else, or vectors have another width.
        FloatingPointError: a vector is not finite.
    """
    folder, of_run = Path(path), dict(belongs_to or {})
    if num_items < 1 or shard_items < 1:
        raise InputError(f"index {folder}: {num_items} items in shards of {shard_items}; both must be at least 1")
    full = (options or IndexOptions()).resolved(num_items, shard_items, tuple(widths))
    faiss_version = load_faiss().__version__
    plan = _plan(full, num_items, widths, shard_items, of_run, faiss_version)
    finished = _finished(folder)
    if finished is not None and of_run and _plan_of(finished) == plan:
        damaged, count = damaged_shards(folder, finished), len(finished.shards)
        if not damaged:
            return finished
        log.warning("index %s: %d of %d shards are damaged and built again", folder, len(damaged), count)
        _reopen(folder, finished, plan, damaged)
    elif finished is not None:
        raise InputError(
            f"index {folder}: holds a finished index of kind {finished.options.kind}, which was built with other "
            "options or from another run; name a new folder"
        )
    _check_folder(folder)
    if not of_run or not _plan_matches(folder, plan):
        _remove_unfinished(folder)
    folder.mkdir(parents=True, exist_ok=True)
    builder = _Builder(folder=folder, blocks=blocks, num_items=num_items, widths=tuple(widths), options=full, plan=plan)
    starts = range(0, num_items, shard_items)
    shards = [builder.shard(k, start, min(start + shard_items, num_items)) for k, start in enumerate(starts)]
    manifest = IndexManifest(
        schema_version=SCHEMA_VERSION,
        what="vector index",
        options=full,
        metric="inner product",
        num_items=num_items,
        widths=tuple(widths),
        shards=tuple(shards),
        belongs_to=of_run,
        faiss=faiss_version,
    )
    write_text(folder / MANIFEST, json_text(manifest.model_dump(), indent=1))
    for file in (*folder.glob("shard-*.json"), *folder.glob("trained-part-*.faiss")):
        file.unlink()
    return read_manifest(folder)


def _plan(
    options: IndexOptions,
    num_items: int,
    widths: Sequence[int],
    shard_items: int,
    of_run: Mapping[str, str],
    faiss: str,
) -> str:
    """Return a digest of all that the files of an index depend on."""
    # As many shards of this size as items need: a greater size that gives the same shards is the same plan.
    size = min(shard_items, num_items)
    return value_digest([SCHEMA_VERSION, asdict(options), num_items, list(widths), size, dict(of_run), faiss])


def _record(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.json"


def _write_record(folder: Path, number: int, plan: str, shard: Shard) -> None:
    """Record that a shard of an unfinished index is finished."""
    write_text(_record(folder, number), json_text({"plan": plan, "shard": shard.model_dump()}))


def _plan_of(manifest: IndexManifest) -> str:
    """Return the digest of the plan that a finished index was built by."""
    shard_items = manifest.shards[0].stop
    return _plan(
        manifest.options, manifest.num_items, manifest.widths, shard_items, manifest.belongs_to, manifest.faiss
    )


def _reopen(folder: Path, manifest: IndexManifest, plan: str, damaged: Collection[int]) -> None:
    """Make a finished index an unfinished one, whose next build writes the damaged shards again.

    Of the clustered kinds it writes all shards again, because the clusters that they share are learned again.
    """
    for number, shard in enumerate(manifest.shards):
        if number not in damaged and manifest.options.kind not in CLUSTERED:
            _write_record(folder, number, plan, shard)
    (folder / MANIFEST).unlink()


def _finished(folder: Path) -> IndexManifest | None:
    """Return the manifest of a finished index; None if there is none.

    Raises:
        InputError: the folder holds another manifest, or a damaged one.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        return read_manifest(folder)
    except InputError:
        raise InputError(
            f"index {folder}: its {MANIFEST} is not that of an index, or damaged; name a new folder"
        ) from None


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"index {folder}: is a file; name a new folder")
    for entry in folder.iterdir():
        if not (_OWN_NAMES.fullmatch(entry.name) or is_temporary(entry.name)):
            raise InputError(f"index {folder}: holds {entry.name}, which no index has; name a new folder")


def _plan_matches(folder: Path, plan: str) -> bool:
    """Return whether all that a killed build left is of this plan."""
    records = list(folder.glob("shard-*.json"))
    return bool(records) and all(json.loads(file.read_text())["plan"] == plan for file in records)


def _remove_unfinished(folder: Path) -> None:
    if folder.exists():
        for entry in folder.iterdir():
            entry.unlink()


@dataclass(kw_only=True)
class _Builder:
    """Writes the shards of one build.

    Attributes:
        folder: the index's folder.
        blocks: reads the vectors.
        num_items: N.
        widths: columns of each part.
        options: the options, without nulls.
        plan: digest of everything that the files depend on.
    """

    folder: Path
    blocks: Blocks
    num_items: int
    widths: tuple[int, ...]
    options: IndexOptions
    plan: str

    def shard(self, number: int, start: int, stop: int) -> Shard:
        """Write the files of a shard, unless a killed build wrote them, and return its entry of the manifest."""
        record = _record(self.folder, number)
        if record.exists():
            return Shard.model_validate_json(json.dumps(json.loads(record.read_text())["shard"]))
        indexes = [self._empty(part) for part in range(len(self.widths))]
        digest, squares = hashlib.sha256(), np.zeros(len(self.widths))
        for vectors in vectors_in(self.blocks, start, stop, sum(self.widths)):
            digest.update(vectors.data)
            for part, columns in enumerate(self._parts(vectors)):
                squares[part] = max(squares[part], np.square(columns, dtype=np.float64).sum(axis=1).max())
                indexes[part].add(columns)
        files = []
        for part in range(len(indexes)):
            file = shard_file(self.folder, number, part)
            with replacing(file, one_writer=True) as temporary:
                load_faiss().write_index(indexes[part], str(temporary))
            files.append(ShardFile(bytes=file.stat().st_size, sha256=file_digest(file)))
        shard = Shard(
            start=start,
            stop=stop,
            files=tuple(files),
            # Rounded up by more than the error of the sums above, so that no vector is longer.
            max_norms=tuple((np.sqrt(squares) * (1 + 1e-9)).tolist()),
            vectors_sha256=digest.hexdigest(),
        )
        _write_record(self.folder, number, self.plan, shard)
        return shard

    def _empty(self, part: int) -> Any:
        """Return an empty index, trained if its kind needs that."""
        if self.options.kind not in CLUSTERED:
            return empty_index(self.options, self.widths[part])
        file = self.folder / f"trained-part-{part}.faiss"
        if not file.exists():
            self._train()
        return load_faiss().read_index(str(file))

    def _train(self) -> None:
        """Learn clusters and codes of every part from a sample of all items, and write the empty indexes."""
        generator = np.random.default_rng(self.options.seed)
        assert self.options.sample_items is not None
        chosen = np.sort(generator.choice(self.num_items, self.options.sample_items, replace=False))
        sample = np.empty((len(chosen), sum(self.widths)), dtype=np.float32)
        first = 0
        for vectors in vectors_in(self.blocks, 0, self.num_items, sum(self.widths)):
            begin, end = np.searchsorted(chosen, [first, first + len(vectors)])
            sample[begin:end] = vectors[chosen[begin:end] - first]
            first += len(vectors)
        for part, columns in enumerate(self._parts(sample)):
            index = empty_index(self.options, self.widths[part])
            index.train(columns)
            with replacing(self.folder / f"trained-part-{part}.faiss", one_writer=True) as temporary:
                load_faiss().write_index(index, str(temporary))

    def _parts(self, vectors: np.ndarray) -> Iterable[np.ndarray]:
        first = 0
        for width in self.widths:
            yield np.ascontiguousarray(vectors[:, first : first + width])
            first += width

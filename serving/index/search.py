"""Searches an index: the items with the greatest inner products with a query, merged from all shards.

Files are faiss's own format, which holds numbers and no code. A damaged file of the right size may still crash faiss or
give wrong items: check digests (`verify`) where the files came from elsewhere.

B: queries, D: width of a vector, K: depth of a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.errors import InputError
from evaluation.block_scores import merge_top
from serving.index.kinds import CLUSTERED, load_faiss, search_effort
from serving.index.manifest import IndexManifest, damage, read_manifest, shard_file

HELD_BYTES = 4 << 30


class VectorIndex:
    """An index of item vectors on disk.

    Attributes:
        folder: where it is.
        manifest: what it says about itself.
        is_exact: whether a search finds the greatest inner products for certain.
        stores_vectors: whether `vectors_of` can return the vectors.
    """

    def __init__(self, folder: Path, manifest: IndexManifest, *, held_bytes: float) -> None:
        """Make an index; `open` does so after its checks."""
        self.folder, self.manifest = folder, manifest
        kind = manifest.options.kind
        self.is_exact, self.stores_vectors = kind == "flat", kind not in CLUSTERED
        starts = np.cumsum([0, *manifest.widths]).tolist()
        self._columns = [slice(*starts[part : part + 2]) for part in range(len(manifest.widths))]
        self._held: dict[tuple[int, int], Any] | None = {} if manifest.total_bytes <= held_bytes else None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        verify: bool = False,
        held_bytes: float = HELD_BYTES,
        belongs_to: Mapping[str, str] | None = None,
    ) -> VectorIndex:
        """Open a finished index.

        Args:
            path: its folder.
            verify: whether to compare the digest of every file with the manifest's, which reads all of them.
            held_bytes: the files are read into memory once and kept if they take at most this many bytes in all.
                Otherwise a flat or hnsw file is mapped into memory at each search, so that the system may drop its
                pages, and a file of another kind is read at each search; one shard at a time.
            belongs_to: what the vectors must have been computed from; None: anything.

        Raises:
            InputError: faiss is missing, this is no finished index, a file is missing or has another size or digest, or
                the index belongs to something else.
        """
        load_faiss()
        folder = Path(path)
        manifest = read_manifest(folder)
        if belongs_to is not None and dict(belongs_to) != manifest.belongs_to:
            raise InputError(
                f"index {folder}: was built from {_in_words(manifest.belongs_to, belongs_to)}; build an index of this "
                "run and checkpoint"
            )
        for number in range(len(manifest.shards)):
            if found := damage(folder, manifest, number, verify=verify):
                raise InputError(f"{found}; repeat the command that built the index, which writes damaged files again")
        return cls(folder, manifest, held_bytes=held_bytes)

    def search(
        self, vectors: np.ndarray, depth: int, *, part: int = 0, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the items with the greatest inner products, by score descending, then id ascending.

        Scores are those of faiss, which may differ from the ranking's in the last digits. Of items that tie for the
        last place, any may be among the found ones. An approximate index may find fewer than K: the rest has id -1
        and score -inf.

        Args:
            vectors: the queries, float32 [B, D]; D is the width of all parts together.
            depth: K.
            part: which part of the columns is searched.
            effort: how thoroughly an approximate index searches (`search_effort`); None: its default.

        Returns:
            Item ids int64 [B, K] and scores float32 [B, K].

        Raises:
            InputError: queries have another width or are not finite, or there are fewer items than `depth`.
        """
        manifest = self.manifest
        if vectors.ndim != 2 or vectors.shape[1] != manifest.width:
            raise InputError(
                f"index {self.folder}: holds vectors of {manifest.width} numbers, a query has shape "
                f"{list(vectors.shape)}; use the index of the model that computed the query"
            )
        if not 1 <= depth <= manifest.num_items:
            raise InputError(f"index {self.folder}: {depth} items asked for, it holds 1 .. {manifest.num_items}")
        if not np.isfinite(vectors).all():
            raise InputError(f"index {self.folder}: a query is not finite; the model diverged, use another checkpoint")
        queries = np.ascontiguousarray(vectors[:, self._columns[part]], dtype=np.float32)
        ids, scores = torch.zeros(len(queries), 0, dtype=torch.int64), torch.zeros(len(queries), 0)
        parameters = search_effort(manifest.options, effort, depth)
        for number, shard in enumerate(manifest.shards):
            size = min(depth, shard.stop - shard.start)
            found, places = self._shard(number, part).search(queries, size, params=parameters)
            of_shard = np.where(places < 0, -1, places + shard.start)
            more_ids, more_scores = torch.from_numpy(of_shard), torch.from_numpy(found)
            ids, scores = merge_top(torch.cat([ids, more_ids], 1), torch.cat([scores, more_scores], 1), depth)
        missing = depth - ids.shape[1]
        return (
            np.pad(ids.numpy(), ((0, 0), (0, missing)), constant_values=-1),
            np.pad(scores.numpy(), ((0, 0), (0, missing)), constant_values=-np.inf),
        )

    def vectors_of(self, items: np.ndarray) -> np.ndarray:
        """Return the vectors of items, float32 [n, D], exactly as they were given to the build; not of ivf kinds.

        Args:
            items: int64 [n], each in 0 .. N - 1.
        """
        assert self.stores_vectors
        vectors = np.empty((len(items), self.manifest.width), dtype=np.float32)
        for number, shard in enumerate(self.manifest.shards):
            here = np.flatnonzero((items >= shard.start) & (items < shard.stop))
            if len(here):
                for part, columns in enumerate(self._columns):
                    local = np.ascontiguousarray(items[here] - shard.start)
                    vectors[here, columns] = self._shard(number, part).reconstruct_batch(local)
        return vectors

    def _shard(self, number: int, part: int) -> Any:
        """Return the faiss index of a shard and part."""
        if self._held is not None and (number, part) in self._held:
            return self._held[number, part]
        faiss, file = load_faiss(), shard_file(self.folder, number, part)
        is_mapped = self._held is None and self.stores_vectors
        if not file.exists():
            raise InputError(f"index {self.folder}: {file.name} is missing; build the index again")
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC if is_mapped else 0)
        except RuntimeError:
            raise InputError(f"{file}: faiss cannot read it, so it is damaged; build the index again") from None
        shard, width = self.manifest.shards[number], self.manifest.widths[part]
        if (index.ntotal, index.d) != (shard.stop - shard.start, width):
            raise InputError(
                f"{file}: holds {index.ntotal} vectors of {index.d} numbers, expected {shard.stop - shard.start} of "
                f"{width}; build the index again"
            )
        if self._held is not None:
            self._held[number, part] = index
        return index


def _in_words(built: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Return what an index was built from, and what it should have been built from, where the two differ."""
    for name in dict.fromkeys((*wanted, *built)):
        there, here = built.get(name, "none"), wanted.get(name, "none")
        if there != here:
            return f"another run or checkpoint: {name} {there[:12]}, and here it is {here[:12]}"
    return "another run or checkpoint"

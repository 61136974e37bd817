"""The kinds of an index and their options, and the empty faiss index of each kind.

A "flat" index compares a query with every vector, so it is exact. The others are approximate: "hnsw" walks a graph of
near vectors, "ivfflat" looks into the nearest of many clusters, and "ivfpq" does the same with compressed vectors.

N: items, n: items of a shard, D: width of a vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from contracts.errors import InputError

KINDS = ("flat", "hnsw", "ivfflat", "ivfpq")
CLUSTERED = ("ivfflat", "ivfpq")
MOST_EFFORT = 1 << 20
# Fewest training vectors for each cluster or code; faiss warns below 39.
_SAMPLES_PER_CLUSTER = 40


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """The options of an index. A kind reads only its own; null becomes a default for the size of a shard.

    Attributes:
        kind: "flat", "hnsw", "ivfflat" or "ivfpq".
        links: of hnsw, faiss's M: links of each item in the graph; the lowest level has twice as many.
        ef_construction: of hnsw, how many candidates for links are looked at when an item is added.
        nlist: of ivfflat and ivfpq, the number of clusters; null: the power of two nearest to 4 sqrt(n), but so few
            that the sample has 40 items for each.
        code_width: of ivfpq, how many numbers of a vector one code stands for. It must divide the width; faiss's m is
            D / code_width. Null: the greatest of 4, 2 and 1 that divides the width.
        nbits: of ivfpq, bits of a code, at most 8: there are 2^nbits codes.
        sample_items: of ivfflat and ivfpq, how many items clusters and codes are learned from, at most N; null: 64 for
            each cluster, and at least 64 for each code.
        seed: of the sample and of the clustering.
    """

    kind: str = "flat"
    links: int = 32
    ef_construction: int = 80
    nlist: int | None = None
    code_width: int | None = None
    nbits: int = 8
    sample_items: int | None = None
    seed: int = 0

    def resolved(self, num_items: int, shard_items: int, widths: tuple[int, ...]) -> IndexOptions:
        """Return the options with a number for each null, which is what a manifest records.

        Args:
            num_items: N.
            shard_items: most items of a shard.
            widths: the width of each part of a vector that is indexed.

        Raises:
            InputError: an option is out of its range.
        """
        if self.kind not in KINDS:
            raise InputError(f"index kind {self.kind!r}: unknown; choose one of {', '.join(KINDS)}")
        _check(self.kind == "hnsw", "links", self.links, 2, 256)
        _check(self.kind == "hnsw", "ef_construction", self.ef_construction, 1, 1 << 16)
        if self.kind not in CLUSTERED:
            return self
        _check(self.kind == "ivfpq", "nbits", self.nbits, 1, 8)
        codes = 2**self.nbits if self.kind == "ivfpq" else 1
        if num_items < codes:
            raise InputError(
                f"index kind ivfpq: learns {codes} codes (nbits {self.nbits}), and there are only {num_items} items; "
                "use kind flat"
            )
        size = min(num_items, shard_items)
        nlist = self.nlist
        if nlist is None:
            nlist = min(2 ** round(math.log2(4 * math.sqrt(size))), max(1, num_items // _SAMPLES_PER_CLUSTER))
        _check(True, "nlist", nlist, 1, num_items)
        sample = min(64 * max(nlist, codes) if self.sample_items is None else self.sample_items, num_items)
        _check(True, "sample_items", sample, max(nlist, codes), num_items)
        width = self.code_width
        if width is None:
            width = next(w for w in (4, 2, 1) if all(each % w == 0 for each in widths))
        if width < 1 or any(each % width for each in widths):
            raise InputError(f"index option code_width={width}: must divide the width of a vector, {max(widths)}")
        return replace(self, nlist=nlist, sample_items=sample, code_width=width)


def _check(applies: bool, name: str, value: int, least: int, most: int) -> None:
    if applies and not least <= value <= most:
        raise InputError(f"index option {name}={value}: must be in {least:,} .. {most:,}; leave it out for the default")


def load_faiss() -> ModuleType:
    """Import faiss.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise InputError("an index of vectors needs faiss, which is not installed; pip install faiss-cpu") from None
    return faiss


def empty_index(options: IndexOptions, width: int) -> Any:
    """Return an empty faiss index of inner products. One of a clustered kind must be trained before items are added.

    Args:
        options: as `IndexOptions.resolved` returns them.
        width: the width of its vectors.
    """
    faiss = load_faiss()
    if options.kind == "flat":
        return faiss.IndexFlatIP(width)
    if options.kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, options.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.ef_construction
        return index
    assert options.nlist is not None
    assert options.code_width is not None
    centers = faiss.IndexFlatIP(width)
    if options.kind == "ivfflat":
        index = faiss.IndexIVFFlat(centers, width, options.nlist, faiss.METRIC_INNER_PRODUCT)
    else:
        num_codes = width // options.code_width
        index = faiss.IndexIVFPQ(centers, width, options.nlist, num_codes, options.nbits, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.seed = options.seed
        index.pq.cp.min_points_per_centroid = 1
    # `centers` belongs to the faiss index from here on; without this, Python would free it first.
    index.own_fields = True
    centers.this.disown()
    index.cp.seed = options.seed
    index.cp.min_points_per_centroid = 1  # a small sample is the caller's choice, and faiss would print a warning
    return index


def search_effort(options: IndexOptions, effort: int | None, depth: int) -> Any:
    """Return faiss's parameters of a search; None for a flat index.

    Args:
        options: as `IndexOptions.resolved` returns them.
        effort: of hnsw, faiss's efSearch: how many candidates are kept, at least `depth` in any case. Of the clustered
            kinds, faiss's nprobe: how many clusters are searched. None: `default_effort`.
        depth: length of the lists that are searched for.
    """
    faiss = load_faiss()
    chosen = default_effort(options) if effort is None else effort
    if options.kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=max(chosen, depth))
    if options.kind in CLUSTERED:
        assert options.nlist is not None
        return faiss.SearchParametersIVF(nprobe=min(chosen, options.nlist))
    return None


def default_effort(options: IndexOptions) -> int:
    """Return 128 candidates of hnsw, or a 32nd of the clusters but at least 8; 0 for a flat index, which has none."""
    if options.kind == "flat":
        return 0
    return 128 if options.kind == "hnsw" else min(options.nlist or 1, max(8, (options.nlist or 1) // 32))


def check_effort(effort: int | None) -> None:
    """Check the effort that a caller chose.

    Raises:
        InputError: it is no whole number, or out of range.
    """
    if effort is None:
        return
    if isinstance(effort, bool) or not isinstance(effort, int) or not 1 <= effort <= MOST_EFFORT:
        raise InputError(
            f"effort={effort!r}: is not a whole number in 1 .. {MOST_EFFORT:,}; leave it out for the default"
        )

"""The tasks of the neighbour search. Each is a pure function of files on disk and writes its result to files.

    work/neighbors-<m>/order.npy              the items to search, in search order
                       searched.npy           bool [N], whether an item is searched
                       copies.npy             the items that are left out as copies, and their originals
                       residual-00000.json    the largest rounding residual of a range, for float16
                       block-00000-00001.npz  candidate lists of both ranges of a block
                       range-00000.npz        a range's lists merged over its finished blocks, and these blocks
                       finished-00000.npz     final lists of a range

`neighbors` runs the tasks. Legend: n rows of a range, H neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graph_builder.stages.injection import FeatureSpec
from graph_builder.stages.triangle import Block
from graph_builder.work_folder import num_row_blocks, read_json, row_range, save_block, write_json
from kernels.candidate_lists import CandidateLists
from kernels.cosine.cosine_topk import Precision
from kernels.cosine.exact_ranking import finish_lists, leave_out_copies
from kernels.cosine.pair_search import HostSearch, PairSearch, RangeRows, Side, find_dots, find_search
from kernels.cosine.threshold_scan import compact_lists, offer_entries
from storage.array_file import map_array, save_array

# The arrays of candidate lists in work files. Thresholds are stored as "line" and margins as "slack": earlier
# versions named them so, and their unfinished builds must stay readable.
_THRESHOLD, _MARGIN = "line", "slack"
_STORED = (_THRESHOLD, _MARGIN, "overflowed", "offsets", "ids", "scores")


@dataclass(frozen=True, kw_only=True)
class NeighborSpec:
    """The parameters that every task needs. The object is small, because it is sent with each task."""

    features: FeatureSpec
    rows_per_task: int
    others: int  # neighbours other than the item itself
    include_self: bool
    precision: Precision
    threads: int

    @property
    def folder(self) -> Path:
        return self.features.work.path / f"neighbors-{self.features.modality}"

    @property
    def num_ranges(self) -> int:
        return num_row_blocks(self.rows_per_task, len(map_array(self.folder / "order.npy")))

    @property
    def num_neighbors(self) -> int:
        return self.others + self.include_self

    def rows(self, index: int) -> slice:
        """Return the range's positions in order.npy."""
        return row_range(index, self.rows_per_task, len(map_array(self.folder / "order.npy")))

    def residual_path(self, index: int) -> Path:
        return self.folder / f"residual-{index:05d}.json"

    def block_path(self, block: Block) -> Path:
        return self.folder / f"block-{block[0]:05d}-{block[1]:05d}.npz"

    def range_path(self, index: int) -> Path:
        return self.folder / f"range-{index:05d}.npz"

    def finished_path(self, index: int) -> Path:
        return self.folder / f"finished-{index:05d}.npz"


def order_items(spec: NeighborSpec, _: int) -> None:
    """Write the items to search, sorted by cluster.

    In this order likely neighbours are compared first, which raises thresholds early, so that later blocks add few
    candidates. Missing items and copies are left out. Memory: about 60 bytes per item.
    """
    features = spec.features
    squares = np.asarray(map_array(features.squares))
    labels = np.asarray(map_array(features.work.graph / "clusters" / f"{features.modality}.npy"))
    copies, originals = leave_out_copies(np.asarray(map_array(features.injected)), squares, spec.others)
    searched = squares > 0
    searched[copies] = False
    order = np.flatnonzero(searched)
    order = order[np.argsort(labels[order], kind="stable")]
    save_array(spec.folder / "searched.npy", searched)
    save_array(spec.folder / "copies.npy", np.stack([copies, originals]))
    save_array(spec.folder / "order.npy", order)


def find_residual(spec: NeighborSpec, index: int) -> None:
    """Write the largest rounding residual of a range. The error bound of every row needs the largest of all ranges."""
    search = find_search(spec.features.backend, spec.precision, spec.threads)
    write_json(spec.residual_path(index), search.largest_residual(*_rows(spec, search, spec.rows(index))))


def search_block(spec: NeighborSpec, block: Block) -> None:
    """Search one block: write the candidate lists of its two ranges, or of its one range if it is on the diagonal."""
    search = find_search(spec.features.backend, spec.precision, spec.threads)
    largest = _largest_residual(spec) if search.precision == "float16" else 0.0
    indices = sorted(set(block))
    sides = [_side(spec, search, index, largest) for index in indices]
    arrays: dict[str, np.ndarray] = {}
    for index, lists in zip(indices, search.search(sides, spec.others), strict=True):
        arrays |= {f"{name}-{index}": array for name, array in zip(_STORED, lists, strict=True)}
    save_block(spec.block_path(block), **arrays)


def merge_range(spec: NeighborSpec, task: tuple[int, list[Block]]) -> None:
    """Merge a range's lists from the blocks of a round into its lists from earlier rounds.

    Args:
        spec: parameters of the tasks.
        task: the range's index, and its blocks of the round.
    """
    index, blocks = task
    path = spec.range_path(index)
    merged = sorted(merged_blocks(spec, index) | set(blocks))
    parts = [(path, "")] if path.exists() else []
    parts += [(spec.block_path(block), f"-{index}") for block in blocks]
    lists: CandidateLists | None = None
    for file, suffix in parts:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name + suffix] for name in _STORED}
        if lists is None:
            lists = CandidateLists.empty(found[_MARGIN], spec.others)
        np.maximum(lists.threshold, found[_THRESHOLD], out=lists.threshold)
        np.logical_or(lists.overflowed, found["overflowed"], out=lists.overflowed)
        offer_entries(lists, found["offsets"], found["ids"], found["scores"], spec.others)
    assert lists is not None
    compact_lists(lists, spec.others)
    arrays = dict(zip(_STORED, lists.packed(), strict=True))
    save_block(path, merged=np.array(merged, dtype=np.int64), **arrays)


def merged_blocks(spec: NeighborSpec, index: int) -> set[Block]:
    """Return the blocks whose candidates a range's merged file already holds."""
    if not spec.range_path(index).exists():
        return set()
    with np.load(spec.range_path(index), allow_pickle=False) as arrays:
        return {(int(row), int(column)) for row, column in arrays["merged"]}


def finish_range(spec: NeighborSpec, index: int) -> None:
    """Write the final lists of a range: ids int64 [n, H], scores float32 [n, H], and `fallback` int64 [2].

    `fallback` counts the rows that the search did not certify, and those of them that were scored against all items
    in float64.
    """
    order = map_array(spec.folder / "order.npy")
    rows = spec.rows(index)
    items = np.asarray(order[rows])
    offsets, positions = np.zeros(len(items) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    overflowed = np.zeros(len(items), dtype=bool)
    if spec.others:
        with np.load(spec.range_path(index), allow_pickle=False) as arrays:
            offsets, positions, overflowed = arrays["offsets"], arrays["ids"], arrays["overflowed"]
    uncertified = int(np.count_nonzero(overflowed))
    if uncertified and spec.precision == "float16":
        offsets, positions, overflowed = _search_again(spec, rows.start, offsets, positions, overflowed)
    ids, scores = finish_lists(
        np.asarray(map_array(spec.features.injected)),
        np.asarray(map_array(spec.features.squares)),
        items,
        offsets,
        order[positions],
        overflowed,
        np.asarray(map_array(spec.folder / "searched.npy")),
        spec.num_neighbors,
        spec.include_self,
        spec.threads,
        find_dots(spec.features.backend, spec.features.injected),
    )
    fallback = np.array([uncertified, np.count_nonzero(overflowed)])
    save_block(spec.finished_path(index), ids=ids, scores=scores, fallback=fallback)


def _search_again(
    spec: NeighborSpec, first: int, offsets: np.ndarray, positions: np.ndarray, overflowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Search the rows that overflowed in float16 again, in float32 against all items.

    This is far cheaper than scoring all items in float64. Returns offsets, positions and overflowed of the whole
    range, with the new lists in place of those that overflowed.
    """
    failed = np.flatnonzero(overflowed)
    order = map_array(spec.folder / "order.npy")
    search = HostSearch("float32", spec.threads)
    features, squares = map_array(spec.features.injected), map_array(spec.features.squares)
    own = np.asarray(order[first + failed])
    # One neighbour more than needed, because in this search a row is compared with itself too.
    side = search.side(RangeRows(features[own], squares[own], -len(failed)), spec.others + 1, 0.0)
    for index in range(spec.num_ranges):
        other = search.side(RangeRows(*_rows(spec, search, spec.rows(index)), spec.rows(index).start), 1, 0.0)
        other.lists.threshold[:] = np.inf  # the columns collect no candidates: they have their lists already
        search.search([side, other], spec.others + 1)
    lists = side.lists
    lists.used[lists.overflowed] = 0
    counts = np.diff(offsets)
    counts[failed] = lists.used
    again, found, _ = lists.entries()
    itself = np.repeat(first + failed, np.diff(again)) == found
    counts[failed] -= np.bincount(np.repeat(np.arange(len(failed)), np.diff(again))[itself], minlength=len(failed))
    joined = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    result = np.empty(joined[-1], dtype=np.int32)
    is_new = np.zeros(len(counts), dtype=bool)
    is_new[failed] = True
    new_entries = np.repeat(is_new, counts)
    result[new_entries] = found[~itself]
    result[~new_entries] = positions
    still = np.zeros(len(counts), dtype=bool)
    still[failed] = lists.overflowed
    return joined, result, still


def _side(spec: NeighborSpec, search: PairSearch, index: int, largest_residual: float) -> Side:
    """Prepare a range for a search, with empty lists and the thresholds that earlier rounds have reached."""
    threshold = None
    if spec.range_path(index).exists():
        with np.load(spec.range_path(index), allow_pickle=False) as arrays:
            threshold = arrays[_THRESHOLD]
    rows = spec.rows(index)
    return search.side(RangeRows(*_rows(spec, search, rows), rows.start, threshold), spec.others, largest_residual)


def _rows(spec: NeighborSpec, search: PairSearch, rows: slice) -> tuple[Any, np.ndarray]:
    """Return injected features float32 [n, d] and squares float64 [n] of a range of positions in the order."""
    items = np.asarray(map_array(spec.folder / "order.npy")[rows])
    return search.gather(spec.features.injected, items), map_array(spec.features.squares)[items]


def _largest_residual(spec: NeighborSpec) -> float:
    return max(read_json(spec.residual_path(index)) for index in range(spec.num_ranges))

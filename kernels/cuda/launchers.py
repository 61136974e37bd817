"""One Python function per CUDA kernel: CuPy arrays in and out, on the current device and stream.

Each .cu file states its kernels' contract, design and speed bound. NVRTC compiles it once per device, and CuPy stores
the binaries on disk. CuPy is needed to call the functions, but not to import the module. A kernel does not check its
arguments, so these functions assert its assumptions. (Matrix products are in `gemm.py`.)

Legend: n rows with a list, C places of a list, q x b scores of a tile, H neighbours, d width, p pairs.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from kernels.backend import to_host
from kernels.candidate_lists import CandidateLists
from kernels.cooccurrence.pair_counts import PairEntries, gap_dtype

SOURCES = Path(__file__).parent
OPTIONS = ("--std=c++17",)  # CuPy adds the architecture and -ftz=true
# Limits that the kernels are compiled with: places of a list (C), and neighbours (H) for which thresholds are seeded.
MAX_CAPACITY = 1024
MAX_NEIGHBORS = 64
# float16 values in 16 bytes. Rows of `unit_rows` are padded to a multiple of this, for the tensor cores.
HALF_VECTOR = 8

_NULL = np.uintp(0)
_BLOCK = 256
_WARPS = _BLOCK // 32


def scan_tile(
    scores: Any,
    row_lists: CandidateLists,
    first_row_id: int,
    column_lists: CandidateLists | None,
    first_column_id: int,
    panel: Any = None,
) -> None:
    """Offer the scores of a tile to the lists of its rows and of its columns.

    Args:
        scores: float32 [q, b], rows contiguous, 16-byte aligned, the row stride a multiple of 4 values.
        row_lists: the lists of the tile's q rows.
        first_row_id: position of the first row.
        column_lists: the lists of the tile's b columns; null: columns have no lists.
        first_column_id: position of the first column.
        panel: int32 [2] on the device, for launches that a CUDA graph repeats. The first number is added to
            first_row_id. The second is how many of `row_lists` are skipped; there are then more than q of them.
    """
    q, b, stride = _tile(scores)
    capacity = row_lists.ids.shape[1]
    assert len(row_lists.ids) == q or panel is not None
    assert column_lists is None or column_lists.ids.shape == (b, capacity)
    rows, columns = (_arrays(lists, "threshold used ids scores") for lists in (row_lists, column_lists))
    places = (np.int32(capacity), np.int32(first_row_id), np.int32(first_column_id), _NULL if panel is None else panel)
    arguments = (scores, np.int32(q), np.int32(b), stride, *rows, *columns, *places)
    _launch("threshold_scan", "scan_tile", (-(-b // 128), -(-q // 64), 1), _BLOCK, arguments)


def seed_thresholds(
    scores: Any,
    lists: CandidateLists,
    of_rows: bool,
    num_neighbors: int,
    first_row_id: int,
    first_column_id: int,
    panel: Any = None,
) -> None:
    """Raise the thresholds of a tile's rows (`of_rows`) or columns as far as the tile's scores alone allow.

    The lists' entries are neither read nor changed. Arguments as for `scan_tile`; `panel` is allowed only for rows.
    H is at most 64.
    """
    assert 1 <= num_neighbors <= MAX_NEIGHBORS
    q, b, stride = _tile(scores)
    assert len(lists.threshold) == (q if of_rows else b) or panel is not None
    name = "seed_row_thresholds" if of_rows else "seed_column_thresholds"
    grid = (-(-q // _WARPS) if of_rows else -(-b // 32), 1, 1)
    sizes = (np.int32(q), np.int32(b), stride)
    places: tuple[Any, ...] = (np.int32(num_neighbors), np.int32(first_row_id), np.int32(first_column_id))
    if of_rows:
        places = (*places, _NULL if panel is None else panel)
    _launch("threshold_scan", name, grid, _BLOCK, (scores, *sizes, lists.threshold, lists.margin, *places))


def compact_tile(
    scores: Any,
    row_lists: CandidateLists,
    first_row_id: int,
    column_lists: CandidateLists | None,
    first_column_id: int,
    num_neighbors: int,
    trigger: int = 0,
    panel: Any = None,
) -> None:
    """Make room in the lists after `scan_tile`, with the same arguments, before the scores are overwritten.

    The threshold of a list with at least `trigger` entries is raised as far as the list allows, and entries below it
    are dropped. A list that the tile overflowed is offered the tile's scores again, with a higher threshold. It is
    marked as overflowed only if more than C entries reach the threshold that C entries justify. C is at most 1024.
    """
    q, b, stride = _tile(scores)
    assert len(row_lists.threshold) == q or panel is not None
    assert column_lists is None or len(column_lists.threshold) == b
    places = (np.int32(num_neighbors), np.int32(trigger), np.int32(first_row_id), np.int32(first_column_id))
    _compact((scores, np.int32(q), np.int32(b), stride), row_lists, column_lists, places, panel)


def compact_lists(lists: CandidateLists, num_neighbors: int, trigger: int = 0) -> None:
    """Do the same as `compact_tile` without a tile. A list that has overflowed cannot be repaired and is marked."""
    places = (np.int32(num_neighbors), np.int32(trigger), np.int32(0), np.int32(0))
    _compact((_NULL, np.int32(len(lists.threshold)), np.int32(0), np.int64(0)), lists, None, places, None)


def _compact(
    tile: tuple[Any, ...],
    row_lists: CandidateLists,
    column_lists: CandidateLists | None,
    places: tuple[np.int32, ...],
    panel: Any,
) -> None:
    capacity = row_lists.ids.shape[1]
    assert places[0] <= capacity <= MAX_CAPACITY
    rows, columns = (
        _arrays(lists, "threshold used ids scores margin overflowed") for lists in (row_lists, column_lists)
    )
    num_lists = int(tile[1]) + (len(column_lists.threshold) if column_lists is not None else 0)
    arguments = (*tile, *rows, *columns, np.int32(capacity), *places, _NULL if panel is None else panel)
    _launch("threshold_scan", "compact_lists", (-(-num_lists // 16), 1, 1), 128, arguments)


def _arrays(lists: CandidateLists | None, names: str) -> list[Any]:
    return [_NULL if lists is None else getattr(lists, name) for name in names.split()]


def pair_dots(left: Any, left_index: Any, right: Any, right_index: Any) -> Any:
    """Return the dot products, float64 [p], of left[left_index] and right[right_index], as `exact_dots.pair_dots`.

    The bits are the same as on a CPU.

    Args:
        left: float32 [*, d], C order.
        left_index: int64 [p].
        right: float32 [*, d], C order.
        right_index: int64 [p].
    """
    pairs, width = len(left_index), left.shape[1]
    out = _empty(left, (pairs,), np.float64)
    arrays = (left, right, left_index, right_index)
    _launch("pair_dots", "pair_dots", _warps(pairs), _BLOCK, (*arrays, np.int64(pairs), np.int32(width), out))
    return out


def unit_rows(rows: Any, squares: Any) -> tuple[Any, Any]:
    """Scale rows to length sqrt(d), round them to float16, and bound the rounding (see unit_rows.cu).

    Args:
        rows: float32 [n, d], C order, d <= 65536.
        squares: float64 [n], from `square_norms`; 0 where the item is missing.

    Returns units float16 [n, d rounded up to a multiple of 8], padded with zeros; and residuals float32 [n], rounded
    up, for rows scaled to length 1.
    """
    n, width = rows.shape
    assert width <= 1 << 16
    padded = -(-width // HALF_VECTOR) * HALF_VECTOR
    units, residuals = _empty(rows, (n, padded), np.float16), _empty(rows, (n,), np.float32)
    sizes = (np.int64(n), np.int32(width), np.int32(padded))
    _launch("unit_rows", "unit_rows", _warps(n), _BLOCK, (rows, squares, *sizes, units, residuals))
    return units, residuals


def center_sums(points: Any, order: Any, starts: Any) -> Any:
    """Return the sum of each centre's points, float64 [k, d], with the bits of `kmeans.center_sums` on the CPU.

    Args:
        points: float64 [b, d], C order.
        order: int64 [b], row numbers of `points`, centre by centre.
        starts: int64 [k+1], where each centre's part of `order` begins.
    """
    num_centers, width = len(starts) - 1, points.shape[1]
    out = _empty(points, (num_centers, width), np.float64)
    grid = (num_centers, -(-width // 128), 1)
    _launch("center_sums", "center_sums", grid, 128, (points, order, starts, np.int32(width), out))
    return out


def injected_rows(indptr: Any, columns: Any, weights: Any, features: Any, own: Any, mu: float) -> Any:
    """Return mu * O E + E of a block of rows, float32 [b, d]: the same bytes as `spmm.injected_rows` on the CPU.

    Args:
        indptr: int64 [b+1], where each CSR row of O begins.
        columns: int64 [nnz], row numbers of `features`.
        weights: float32 [nnz].
        features: rows of E, float16 or float32 [*, d], C order.
        own: the block's rows of E, [b, d], C order, of the same dtype.
        mu: the factor of O E.
    """
    num_rows, width = own.shape
    assert features.dtype == own.dtype
    assert len(indptr) == num_rows + 1
    out = _empty(own, (num_rows, width), np.float32)
    values = 16 // features.dtype.itemsize
    aligned = width % values == 0 and all(_address(array) % 16 == 0 for array in (features, own))
    warps = num_rows * -(-width // (32 * values))
    scalars = (np.int64(num_rows), np.int32(width), np.float64(mu), np.int32(aligned))
    name = f"injected_rows_{features.dtype.name}"
    _launch("injected_rows", name, _warps(warps), _BLOCK, (indptr, columns, weights, features, own, *scalars, out))
    return out


def host_bucket_pairs(
    xp: Any, items: np.ndarray, offsets: np.ndarray, max_gap: int, centers: tuple[int, int] | None = None
) -> PairEntries:
    """Compute `pair_counts.bucket_pairs` on the GPU for arrays in host memory and int32 items."""
    entries = bucket_pairs(xp.asarray(items), xp.asarray(offsets), max_gap, centers)
    return PairEntries(*(to_host(array) for array in entries))


def bucket_pairs(items: Any, offsets: Any, max_gap: int, centers: tuple[int, int] | None = None) -> PairEntries:
    """Compute `pair_counts.bucket_pairs` on the device, for int32 items. The order within a row is arbitrary.

    Memory: 5 to 8 bytes per entry and 24 per position of `centers`.
    """
    assert items.dtype == np.int32
    xp = _module(items)
    first, last = centers or (0, len(items))
    rows, buckets = xp.unique(items[first:last], return_inverse=True)
    buckets = buckets.astype(xp.int64)
    counts = xp.zeros(len(rows), dtype=xp.uint64)
    scalars = tuple(np.int64(value) for value in (first, last, len(offsets) - 1, max_gap))
    grid = _warps(last - first)
    _launch("pair_counts", "count_pairs", grid, _BLOCK, (items, buckets, offsets, *scalars, counts))
    starts = xp.zeros(len(rows) + 1, dtype=xp.int64)
    starts[1:] = xp.cumsum(counts.astype(xp.int64))
    total = int(starts[-1])
    gaps = _empty(items, (total,), gap_dtype(max_gap))
    columns = _empty(items, (total,), np.int32)
    cursors = starts[:-1].astype(xp.uint64)
    name = f"place_pairs_{gaps.dtype.name}"
    _launch("pair_counts", name, grid, _BLOCK, (items, buckets, offsets, *scalars, cursors, columns, gaps))
    filled = counts > 0
    return PairEntries(rows[filled], xp.concatenate([starts[:1], starts[1:][filled]]), columns, gaps)


def _tile(scores: Any) -> tuple[int, int, np.int64]:
    q, b = scores.shape
    stride = scores.strides[0] // 4
    assert scores.strides[1] == 4 or b == 1
    assert stride % 4 == 0
    assert _address(scores) % 16 == 0
    return q, b, np.int64(stride)


def _warps(count: int) -> tuple[int, int, int]:
    """Return a grid with one warp for each of `count` units of work."""
    return (-(-count // _WARPS), 1, 1)


def _empty(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    return _module(like).empty(shape, dtype=dtype)


def _module(array: Any) -> Any:
    """Return the array's module: NumPy in tests that emulate the kernels, else CuPy."""
    if isinstance(array, np.ndarray):
        return np
    import cupy

    return cupy


def _address(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def _launch(source: str, name: str, grid: tuple[int, int, int], block: int, arguments: tuple[Any, ...]) -> None:
    import cupy

    if min(grid) > 0:
        _kernel(source, name, cupy.cuda.Device().id)(grid, (block, 1, 1), arguments)


@functools.cache
def _kernel(source: str, name: str, device: int) -> Any:
    return _module_of_source(source, device).get_function(name)


@functools.cache
def _module_of_source(source: str, device: int) -> Any:  # noqa: ARG001  (a device has its own)
    import cupy

    return cupy.RawModule(code=(SOURCES / f"{source}.cu").read_text(), options=OPTIONS)

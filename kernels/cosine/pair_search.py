"""The cosine search of row ranges that graph builds call: one interface, run on CPU cores or on a GPU.

A *side* is a row range that is prepared for a search: its unit rows and empty candidate lists. A search scores every
pair of items within one side, or between two sides, once. It returns the candidate lists in host memory. The final
lists are the same on a CPU and on a GPU; the precision decides how many rows are certified.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from kernels.backend import Backend, array_module, to_host
from kernels.candidate_lists import CandidateLists, PackedLists, num_places
from kernels.cosine.cosine_topk import Precision, error_bounds, list_margin, product_scale, unit_rows
from kernels.cosine.exact_dots import pair_dots
from kernels.cosine.exact_ranking import DotProducts
from kernels.cosine.score_tiles import scan_rectangle, scan_triangle
from kernels.cosine.threshold_scan import compact_lists
from kernels.cuda import launchers as cuda_kernels
from kernels.cuda.device_rows import DeviceDots, rows_on_device
from kernels.cuda.recording import can_record
from kernels.cuda.tile_loop import BUFFER_BYTES, DeviceTileLoop, empty_lists, tile_shape
from storage.array_file import map_array

# A list on a GPU has twice the places of a list on a CPU and these in addition, because each compaction is a launch.
_DEVICE_PLACES = 16


class RangeRows(NamedTuple):
    """A range of present items to search: rows float32 [n, d], not yet scaled, and their squares float64 [n]."""

    rows: Any  # in host memory or on the search's device
    squares: np.ndarray
    first_id: int  # row r is the item at position first_id + r
    threshold: np.ndarray | None = None  # float32 [n], thresholds that earlier searches have reached; null: none


class Side(NamedTuple):
    """A row range that is prepared for a search."""

    first_id: int
    units: Any  # [n, d], in the search's own dtype and on its device
    lists: CandidateLists  # n lists


class PairSearch(Protocol):
    """The operations of a search that a graph build's task uses."""

    precision: Precision

    def gather(self, path: Path, items: np.ndarray) -> Any:
        """Return rows of a `.npy` file, float32 [n, d], in host memory or on the search's device."""
        ...

    def largest_residual(self, rows: Any, squares: np.ndarray) -> float:
        """Return the largest rounding residual of some rows: R of `error_bounds`."""
        ...

    def side(self, part: RangeRows, num_best: int, largest_residual: float) -> Side:
        """Prepare a range: its unit rows, and empty lists for H = `num_best`.

        Args:
            part: the range.
            num_best: H.
            largest_residual: R of `error_bounds`, over all ranges of the search.
        """
        ...

    def search(self, sides: Sequence[Side], num_best: int) -> list[PackedLists]:
        """Score all pairs within one side, or between two. Return the compacted lists of each side in host memory."""
        ...


class HostSearch:
    """A search on CPU cores, in float32. With rows rounded to float16 it tests that precision without a GPU."""

    def __init__(self, precision: Precision = "float32", threads: int = 1) -> None:
        self.precision: Precision = precision
        self._threads = threads

    def gather(self, path: Path, items: np.ndarray) -> np.ndarray:
        """See `PairSearch`."""
        return np.asarray(map_array(path)[items])

    def largest_residual(self, rows: np.ndarray, squares: np.ndarray) -> float:
        """See `PairSearch`."""
        return float(unit_rows(rows, squares, self.precision)[1].max(initial=0))

    def side(self, part: RangeRows, num_best: int, largest_residual: float) -> Side:
        """See `PairSearch`. Memory: n * (4 d + 8 (H + 32)) bytes."""
        units, residuals = unit_rows(part.rows, part.squares, self.precision)
        margin = list_margin(error_bounds(residuals, largest_residual, units.shape[1], self.precision))
        return Side(part.first_id, units, CandidateLists.empty(margin, num_best, part.threshold))

    def search(self, sides: Sequence[Side], num_best: int) -> list[PackedLists]:
        """See `PairSearch`."""
        scale = product_scale(sides[0].units.shape[1], self.precision)
        if len(sides) == 1:
            scan_triangle(sides[0].units, sides[0].lists, sides[0].first_id, num_best, scale, self._threads)
        else:
            first, second = ((side.units, side.lists, side.first_id) for side in sides)
            scan_rectangle(*first, *second, num_best, scale, self._threads)
        for side in sides:
            compact_lists(side.lists, num_best)
        return [side.lists.packed() for side in sides]


class DeviceSearch:
    """A search on the current GPU, with rows in float16 and sums in float32."""

    precision: Precision = "float16"

    def __init__(self, xp: Any, multiprocessors: int, graph: bool = False) -> None:
        """Prepare a search.

        Args:
            xp: cupy.
            multiprocessors: their number on the current device.
            graph: launch panels of tiles as CUDA graphs (`recording.can_record`).
        """
        self._xp = xp
        self._tile = tile_shape(BUFFER_BYTES, multiprocessors)
        self._graph = graph

    def gather(self, path: Path, items: np.ndarray) -> Any:
        """See `PairSearch`. The whole file is copied to the device once per process, if it fits."""
        rows = rows_on_device(self._xp, path)
        return map_array(path)[items] if rows is None else rows[self._xp.asarray(items)]

    def largest_residual(self, rows: Any, squares: np.ndarray) -> float:
        """See `PairSearch`."""
        return float(self._unit_rows(rows, squares)[1].max()) if len(rows) else 0.0

    def side(self, part: RangeRows, num_best: int, largest_residual: float) -> Side:
        """See `PairSearch`. Device memory: n * (6 d + 16 (H + 40)) bytes."""
        units, residuals = self._unit_rows(part.rows, part.squares)
        margin = list_margin(error_bounds(to_host(residuals), largest_residual, part.rows.shape[1], self.precision))
        # More places than on a CPU: a whole tile is scanned between two compactions.
        lists = empty_lists(self._xp, self._xp.asarray(margin), 2 * num_places(num_best) + _DEVICE_PLACES)
        if part.threshold is not None:
            lists.threshold[:] = self._xp.asarray(part.threshold)
        return Side(part.first_id, units, lists)

    def search(self, sides: Sequence[Side], num_best: int) -> list[PackedLists]:
        """See `PairSearch`."""
        loop = DeviceTileLoop(
            xp=self._xp, width=self._width, num_neighbors=num_best, tile=self._tile, graph=self._graph
        )
        if len(sides) == 1:
            loop.triangle(sides[0].units, sides[0].lists, sides[0].first_id)
        else:
            first, second = ((side.units, side.lists, side.first_id) for side in sides)
            loop.rectangle(*first, *second)
        # Packed on the device, because four of five places are empty.
        return [PackedLists(*(to_host(array) for array in side.lists.packed(self._xp))) for side in sides]

    def _unit_rows(self, rows: Any, squares: np.ndarray) -> tuple[Any, Any]:
        self._width = rows.shape[1]
        on_device = self._xp.ascontiguousarray(self._xp.asarray(rows))
        return cuda_kernels.unit_rows(on_device, self._xp.asarray(squares))


def find_search(backend: Backend, precision: Precision, threads: int) -> PairSearch:
    """Return the search that a task on this machine uses: float16 on a GPU if there is one, float32 on CPU cores.

    Raises:
        InputError: `backend` is "cuda", and CuPy or a GPU is missing.
    """
    xp = array_module(backend)
    if xp is np or precision == "float32":
        return HostSearch(precision, threads)
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
    return DeviceSearch(xp, properties["multiProcessorCount"], can_record(xp))


def find_dots(backend: Backend, path: Path) -> DotProducts:
    """Return `exact_dots.pair_dots` or, if there is a GPU, a function that computes the same bits on it.

    Args:
        backend: of the graph's options.
        path: the `.npy` file of the rows, float32 [N, d], that the function will be called with.
    """
    xp = array_module(backend)
    return pair_dots if xp is np else DeviceDots(xp, path)

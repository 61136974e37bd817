"""The cosine search of ranges of rows behind one interface: tiles on CPU cores, or on a GPU.

A search prepares the sides it is given (unit rows and empty candidate lists), lets every pair of items of
one side, or of two, meet once, and hands the lists back in host memory. Which one ran leaves no trace in
the exact lists that follow; the precision decides how many rows are certified.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from kernels.backend import Backend, array_module, to_host
from kernels.candidate_lists import CandidateLists, num_places
from kernels.cosine.cosine_topk import Precision, error_bounds, list_slack, product_scale, unit_rows
from kernels.cosine.exact_dots import pair_dots
from kernels.cosine.exact_ranking import DotProducts
from kernels.cosine.score_tiles import scan_rectangle, scan_triangle
from kernels.cosine.threshold_scan import compact_lists
from kernels.cuda import launchers as cuda_kernels
from kernels.cuda.tile_loop import BUFFER_BYTES, DeviceTileLoop, empty_lists, tile_shape

# Places of a list on a GPU beyond twice those on a CPU: compacting takes a launch.
_DEVICE_PLACES = 16


class RangeRows(NamedTuple):
    """A range of items to search: present rows float32 [n, d] and their squares float64 [n], before they are scaled."""

    rows: np.ndarray
    squares: np.ndarray
    first_id: int  # row r is the item at position first_id + r
    line: np.ndarray | None = None  # float32 [n], what earlier searches have shown; null: nothing


class Side(NamedTuple):
    """A range that is ready for a search."""

    first_id: int
    units: Any  # [n, d], as the search wants them
    lists: CandidateLists  # n lists


class PairSearch(Protocol):
    """What a task of the triangle needs."""

    precision: Precision

    def largest_residual(self, rows: np.ndarray, squares: np.ndarray) -> float:
        """The largest rounding residual of some rows: the R of `error_bounds`."""
        ...

    def side(self, part: RangeRows, num_best: int, largest_residual: float) -> Side:
        """Unit rows and empty lists of H = `num_best`; `largest_residual`: the R of all ranges of the search."""
        ...

    def search(self, sides: Sequence[Side], num_best: int) -> list[CandidateLists]:
        """All pairs within the one side, or between the two; compacted lists in host memory, one for each side."""
        ...


class HostSearch:
    """Tiles on CPU cores, in float32; or with rows rounded to float16, which is how that is tested without a GPU."""

    def __init__(self, precision: Precision = "float32", threads: int = 1) -> None:
        self.precision: Precision = precision
        self._threads = threads

    def largest_residual(self, rows: np.ndarray, squares: np.ndarray) -> float:
        """See `PairSearch`."""
        return float(unit_rows(rows, squares, self.precision)[1].max(initial=0))

    def side(self, part: RangeRows, num_best: int, largest_residual: float) -> Side:
        """See `PairSearch`. Memory: n * (4 d + 8 (H + 32)) bytes."""
        units, residuals = unit_rows(part.rows, part.squares, self.precision)
        slack = list_slack(error_bounds(residuals, largest_residual, units.shape[1], self.precision))
        return Side(part.first_id, units, CandidateLists.empty(slack, num_best, part.line))

    def search(self, sides: Sequence[Side], num_best: int) -> list[CandidateLists]:
        """See `PairSearch`."""
        scale = product_scale(sides[0].units.shape[1], self.precision)
        if len(sides) == 1:
            scan_triangle(sides[0].units, sides[0].lists, sides[0].first_id, num_best, scale, self._threads)
        else:
            first, second = ((side.units, side.lists, side.first_id) for side in sides)
            scan_rectangle(*first, *second, num_best, scale, self._threads)
        for side in sides:
            compact_lists(side.lists, num_best)
        return [side.lists for side in sides]


class DeviceSearch:
    """Tiles on the current GPU, rows in float16, sums in float32."""

    precision: Precision = "float16"

    def __init__(self, xp: Any, multiprocessors: int) -> None:
        """`xp`: cupy; `multiprocessors`: of the current device."""
        self._xp = xp
        self._tile = tile_shape(BUFFER_BYTES, multiprocessors)

    def largest_residual(self, rows: np.ndarray, squares: np.ndarray) -> float:
        """See `PairSearch`."""
        return float(self._unit_rows(rows, squares)[1].max()) if len(rows) else 0.0

    def side(self, part: RangeRows, num_best: int, largest_residual: float) -> Side:
        """See `PairSearch`. Device memory: n * (6 d + 16 (H + 40)) bytes."""
        units, residuals = self._unit_rows(part.rows, part.squares)
        slack = list_slack(error_bounds(to_host(residuals), largest_residual, part.rows.shape[1], self.precision))
        # More places than on a CPU: a whole tile is scanned between two compactions.
        lists = empty_lists(self._xp, self._xp.asarray(slack), 2 * num_places(num_best) + _DEVICE_PLACES)
        if part.line is not None:
            lists.line[:] = self._xp.asarray(part.line)
        return Side(part.first_id, units, lists)

    def search(self, sides: Sequence[Side], num_best: int) -> list[CandidateLists]:
        """See `PairSearch`."""
        loop = DeviceTileLoop(xp=self._xp, width=self._width, num_neighbors=num_best, tile=self._tile)
        if len(sides) == 1:
            loop.triangle(sides[0].units, sides[0].lists, sides[0].first_id)
        else:
            first, second = ((side.units, side.lists, side.first_id) for side in sides)
            loop.rectangle(*first, *second)
        return [CandidateLists(*(to_host(array) for array in side.lists)) for side in sides]

    def _unit_rows(self, rows: np.ndarray, squares: np.ndarray) -> tuple[Any, Any]:
        self._width = rows.shape[1]
        return cuda_kernels.unit_rows(self._xp.asarray(np.ascontiguousarray(rows)), self._xp.asarray(squares))


def find_search(backend: Backend, precision: Precision, threads: int) -> PairSearch:
    """The search that a task on this machine uses: float16 runs on a GPU where there is one, float32 on CPU cores.

    Raises:
        InputError: "cuda" was named and CuPy or a GPU is missing.
    """
    xp = array_module(backend)
    if xp is np or precision == "float32":
        return HostSearch(precision, threads)
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
    return DeviceSearch(xp, properties["multiProcessorCount"])


def find_dots(backend: Backend) -> DotProducts:
    """`exact_dots.pair_dots`, computed where `find_search` would search: the bits are the same."""
    xp = array_module(backend)
    return pair_dots if xp is np else functools.partial(cuda_kernels.host_pair_dots, xp)

"""The loop over tiles of one task of the cosine search on a GPU. All tiles use one buffer, which stays in L2.

For each tile, cuBLAS writes the scores (float16 operands, float32 results) into the buffer. `scan_tile` offers the
scores to the lists of the tile's rows and columns. `compact_tile` shortens the lists that fill up. Writing scores to
memory and reading them back would take 2 to 3 times as long as the product. From L2, the scan takes about half as
long as the product.

With `graph`, Python queues few of the tiles itself: at d = 384 it takes about as long to queue a tile's 3 launches as a
fast GPU takes to run them. A *panel* is some rows against all columns of a rectangle. A panel is recorded once per
rectangle as a CUDA graph and launched for each panel. Before each launch the panel's rows are copied to the place that
the graph reads, and the kernels read the panel's row numbers from the device. A triangle is cut into two triangles and
a rectangle, again and again, until the triangles are small. So of T tiles, Python queues or records about sqrt(T) log T
(`benchmarks/tile_loop_host.py` counts them).
With `overlap`, one tile is scanned while the next is multiplied (`streams.py`).

Legend: n rows with a list, C places of a list, H neighbours, d width, k = d padded.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np

from kernels.candidate_lists import CandidateLists
from kernels.cuda.gemm import multiply_fp16
from kernels.cuda.launchers import compact_lists, compact_tile, scan_tile, seed_thresholds
from kernels.cuda.recording import WORKSPACE_BYTES, recorded_graph
from kernels.cuda.streams import Overlap

# Rows and columns that one thread block of cuBLAS's float16 kernels computes on sm_80 to sm_100.
GEMM_ROWS, GEMM_COLUMNS = 128, 256
BUFFER_BYTES = 24 << 20
# Panels of the triangles that are not cut further. A rectangle needs some panels to be worth its recording.
_SMALL_TRIANGLE = 8

Range = tuple[int, int]


def tile_shape(buffer_bytes: int, multiprocessors: int) -> tuple[int, int]:
    """Return the rows and columns of a tile that fits the buffer and keeps the multiprocessors busy.

    A GEMM runs in waves (CUDA's word) of one 128 x 256 block per multiprocessor. A last wave with few blocks takes as
    long as a full one. The function finds the shapes whose waves are fullest (within 2%), and among these chooses the
    largest, then the one closest to a square.
    """
    cells = buffer_bytes // (4 * GEMM_ROWS * GEMM_COLUMNS)
    assert cells >= 1
    shapes = [(down, across) for down in range(1, cells + 1) for across in range(1, cells // down + 1)]
    shapes = [(down, across) for down, across in shapes if down * GEMM_ROWS <= across * GEMM_COLUMNS]

    def worth(shape: tuple[int, int]) -> tuple[int, int, int]:
        blocks = shape[0] * shape[1]
        use = blocks / (-(-blocks // multiprocessors) * multiprocessors)
        return round(use * 50), blocks, -abs(shape[0] * GEMM_ROWS - shape[1] * GEMM_COLUMNS)

    down, across = max(shapes, key=worth)
    return down * GEMM_ROWS, across * GEMM_COLUMNS


def cut(first: int, last: int, step: int) -> list[Range]:
    """Cut [first, last) into ranges of `step`; the last range may be shorter."""
    return [(begin, min(begin + step, last)) for begin in range(first, last, step)]


class _Side(NamedTuple):
    """Consecutive rows of a search with their lists."""

    units: Any  # float16 [n, k]
    lists: CandidateLists
    first_id: int

    def part(self, rows: Range) -> _Side:
        return _Side(self.units[slice(*rows)], part_of(self.lists, rows), self.first_id + rows[0])


class DeviceTileLoop:
    """A search on the current device, with buffers and streams that are reused from task to task.

    Args:
        xp: cupy.
        width: d.
        num_neighbors: H, at most 64.
        tile: rows and columns of a tile, as `tile_shape` returns them; rows <= columns, columns a multiple of 4.
        overlap: scan one tile while the next is multiplied; this needs a second buffer.
        graph: launch panels as CUDA graphs.
    """

    def __init__(
        self,
        *,
        xp: Any,
        width: int,
        num_neighbors: int,
        tile: tuple[int, int],
        overlap: bool = False,
        graph: bool = False,
    ) -> None:
        assert tile[0] <= tile[1]
        assert tile[1] % 4 == 0
        self._xp, self._width, self._num_neighbors = xp, width, num_neighbors
        self._tile_rows, self._tile_columns = tile
        self._buffers = [xp.empty(tile, dtype=np.float32) for _ in range(2 if overlap else 1)]
        self._turn = 0
        self._overlap = Overlap(xp) if overlap else None
        self._workspace = xp.empty(WORKSPACE_BYTES, dtype=np.uint8) if graph else None
        # Graphs and the arrays that they read, which must exist until the last launch has run.
        self._in_use: list[Any] = []

    def triangle(self, units: Any, lists: CandidateLists, first_id: int) -> None:
        """Offer the score of every pair of different rows to the lists of both rows, then compact the lists.

        Args:
            units: float16 [n, k], from `launchers.unit_rows`; every row is an item that has the modality.
            lists: n lists.
            first_id: position of the first row.
        """
        self._triangle(_Side(units, lists, first_id))
        self._end(lists)

    def rectangle(
        self,
        row_units: Any,
        row_lists: CandidateLists,
        first_row_id: int,
        column_units: Any,
        column_lists: CandidateLists,
        first_column_id: int,
    ) -> None:
        """Offer the score of every pair between two disjoint row ranges to the lists of both rows.

        Arguments as for `triangle`, for each of the two ranges. The lists end compacted.
        """
        rows = _Side(row_units, row_lists, first_row_id)
        self._rectangle(rows, _Side(column_units, column_lists, first_column_id), seed=True)
        self._end(row_lists, column_lists)

    def _triangle(self, side: _Side) -> None:
        n, height = len(side.units), self._tile_rows
        if self._workspace is None or n <= _SMALL_TRIANGLE * height:
            self._small_triangle(side)
            return
        middle = -(-n // (2 * height)) * height  # a multiple of the height: all panels of the rectangle are whole
        parts = side.part((0, middle)), side.part((middle, n))
        for part in parts:
            self._triangle(part)
        self._rectangle(*parts, seed=False)  # the two triangles have raised the thresholds further than seeds could

    def _small_triangle(self, side: _Side) -> None:
        """Search a triangle panel by panel. Each panel begins at the diagonal."""
        n = len(side.units)
        with self._on_streams():
            for first, last in cut(0, n, self._tile_rows):
                rows = side.part((first, last))
                self._offer(rows, rows, seed_rows=True, seed_columns=False, diagonal=True)
                for place in cut(last, n, self._tile_columns):
                    self._offer(rows, side.part(place), seed_rows=False, seed_columns=first == 0)

    def _rectangle(self, rows: _Side, columns: _Side, seed: bool) -> None:
        """Search a rectangle panel by panel; `seed`: raise thresholds by a row's and a column's first tile."""
        tiles = [columns.part(place) for place in cut(0, len(columns.units), self._tile_columns)]
        panels = cut(0, len(rows.units), self._tile_rows)
        # The panels with the same launches. If there are seeds, the first panel has more launches, and the last panel
        # may have fewer rows.
        alike = range(int(seed), len(rows.units) // self._tile_rows) if self._workspace is not None else range(0)
        if len(alike) < 2:
            alike = range(0)
        with self._on_streams():
            for k, place in enumerate(panels):
                if k not in alike:
                    self._panel(rows.part(place), tiles, seed, seed_columns=seed and k == 0)
        if alike:
            self._repeat(alike, rows, tiles, seed)

    def _panel(self, rows: _Side, tiles: list[_Side], seed_rows: bool, seed_columns: bool, panel: Any = None) -> None:
        for k, columns in enumerate(tiles):
            self._offer(rows, columns, seed_rows and k == 0, seed_columns, panel)

    def _repeat(self, panels: range, rows: _Side, tiles: list[_Side], seed_rows: bool) -> None:
        """Search the panels with the given numbers, which have all their rows, by one recorded graph."""
        xp, height = self._xp, self._tile_rows
        numbers = xp.asarray([(k * height, k * height) for k in panels], dtype=np.int32)
        staged = rows._replace(units=xp.empty_like(rows.units[:height]))
        panel = xp.empty_like(numbers[0])
        # cuBLAS loads a kernel at the first product of a shape, which cannot be recorded.
        for columns in {len(tile.units): tile for tile in tiles}.values():
            multiply_fp16(staged.units, columns.units, self._scores(staged, columns), self._width, self._workspace)

        def work() -> None:
            with self._on_streams():
                self._panel(staged, tiles, seed_rows, seed_columns=False, panel=panel)

        before = self._overlap
        self._overlap = Overlap(xp) if before else None  # a recording cannot wait for earlier work
        try:
            graph = recorded_graph(xp, work)
        finally:
            self._overlap = before
        for k, own_numbers in zip(panels, numbers, strict=True):
            xp.copyto(staged.units, rows.units[k * height : (k + 1) * height])
            xp.copyto(panel, own_numbers)
            graph.launch()
        self._in_use += [graph, staged.units, panel, numbers]

    def _offer(
        self,
        rows: _Side,
        columns: _Side,
        seed_rows: bool,
        seed_columns: bool,
        panel: Any = None,
        diagonal: bool = False,
    ) -> None:
        """Multiply and scan one tile.

        Args:
            rows: the tile's rows.
            columns: the tile's columns.
            seed_rows: raise the thresholds of the rows first.
            seed_columns: raise the thresholds of the columns first.
            panel: while a graph is recorded, the one of `scan_tile`; else null.
            diagonal: the columns are the rows, so one list for each of them gets all scores.
        """
        ids = rows.first_id, columns.first_id
        column_lists = None if diagonal else columns.lists
        place = self._turn % len(self._buffers)
        scores = self._scores(rows, columns)
        self._turn += 1
        with self._overlap.product(place) if self._overlap else contextlib.nullcontext():
            workspace = None if panel is None else self._workspace
            multiply_fp16(rows.units, columns.units, scores, self._width, workspace)
        with self._overlap.lists(place) if self._overlap else contextlib.nullcontext():
            if seed_rows:
                seed_thresholds(scores, rows.lists, True, self._num_neighbors, *ids, panel)
            if seed_columns:
                seed_thresholds(scores, columns.lists, False, self._num_neighbors, *ids)
            scan_tile(scores, rows.lists, ids[0], column_lists, ids[1], panel)
            trigger = rows.lists.ids.shape[1] // 2  # the other half of a list's places is room for the next tile
            compact_tile(scores, rows.lists, ids[0], column_lists, ids[1], self._num_neighbors, trigger, panel)

    def _scores(self, rows: _Side, columns: _Side) -> Any:
        """Return the part of the next buffer that holds a tile's scores."""
        return self._buffers[self._turn % len(self._buffers)][: len(rows.units), : len(columns.units)]

    def _end(self, *sides: CandidateLists) -> None:
        """Compact the lists. If graphs were launched, wait until they have run."""
        with self._on_streams(), self._overlap.list_stream if self._overlap else contextlib.nullcontext():
            for lists in sides:
                compact_lists(lists, self._num_neighbors)
        if self._in_use:
            self._xp.cuda.get_current_stream().synchronize()
            self._in_use.clear()

    def _on_streams(self) -> contextlib.AbstractContextManager[None]:
        return self._overlap.joined() if self._overlap else contextlib.nullcontext()


def empty_lists(xp: Any, margin: Any, capacity: int) -> CandidateLists:
    """Return n empty lists of C = `capacity` places on the device, with `margin` float32 [n].

    A capacity of a few times H makes compactions rare.
    """
    n = len(margin)
    return CandidateLists(
        threshold=xp.full(n, -np.inf, dtype=np.float32),
        margin=margin,
        used=xp.zeros(n, dtype=np.int32),
        ids=xp.empty((n, capacity), dtype=np.int32),
        scores=xp.empty((n, capacity), dtype=np.float32),
        overflowed=xp.zeros(n, dtype=np.bool_),
    )


def part_of(lists: CandidateLists, rows: Range) -> CandidateLists:
    """Return the lists of a range of rows as views."""
    return CandidateLists(*(array[slice(*rows)] for array in lists))

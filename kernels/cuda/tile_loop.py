"""The loop over tiles of one task of the cosine search on a GPU. All tiles use one buffer, which stays in L2.

For each tile, cuBLAS writes the scores (float16 operands, float32 results) into the buffer. `scan_tile` offers the
scores to the lists of the tile's rows and columns. `compact_tile` shortens the lists that fill up. Writing scores to
memory and reading them back would take 2 to 3 times as long as the product. From L2, the scan takes about half as
long as the product.

With `overlap`, one tile is scanned while the next is multiplied (`streams.py`).
With `graph`, each panel of a rectangle is launched as one CUDA graph. A panel is some rows against all columns. The
reason: at d = 384, Python takes about as long to queue a tile's 3 launches as a fast GPU takes to run them. The graph
is recorded once per rectangle and launched for each panel. Before each launch the panel's rows are copied to the
place that the graph reads, and the kernels read the panel's row numbers from the device.

Legend: n rows with a list, C places of a list, H neighbours, d width, k = d padded.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from kernels.candidate_lists import CandidateLists
from kernels.cuda.gemm import multiply_fp16
from kernels.cuda.launchers import compact_lists, compact_tile, scan_tile, seed_thresholds
from kernels.cuda.streams import Overlap, recorded_graph

# Rows and columns that one thread block of cuBLAS's float16 kernels computes on sm_80 to sm_100.
GEMM_ROWS, GEMM_COLUMNS = 128, 256
BUFFER_BYTES = 24 << 20
# The workspace that cuBLAS requests on sm_90.
WORKSPACE_BYTES = 32 << 20

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


class DeviceTileLoop:
    """A search on the current device, with buffers and streams that are reused from task to task.

    Args:
        xp: cupy.
        width: d.
        num_neighbors: H, at most 64.
        tile: rows and columns of a tile, as `tile_shape` returns them; rows <= columns, columns a multiple of 4.
        overlap: scan one tile while the next is multiplied; this needs a second buffer.
        graph: launch the panels of a rectangle as a CUDA graph.
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

    def triangle(self, units: Any, lists: CandidateLists, first_id: int) -> None:
        """Offer the score of every pair of different rows to the lists of both rows, then compact the lists.

        Args:
            units: float16 [n, k], from `launchers.unit_rows`; every row is an item that has the modality.
            lists: n lists.
            first_id: position of the first row.
        """
        n = len(units)
        with self._on_streams():
            for panel in cut(0, n, self._tile_rows):
                first, last = panel
                rows = part_of(lists, panel)
                place = (first_id + first, first_id + first)
                self._offer(units[first:last], units[first:last], rows, None, place, seed_rows=True, seed_columns=False)
                for columns in cut(last, n, self._tile_columns):
                    parts = (units[first:last], units[slice(*columns)], rows, part_of(lists, columns))
                    place = (first_id + first, first_id + columns[0])
                    self._offer(*parts, place, seed_rows=False, seed_columns=first == 0)
            self._finish(lists)

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
        cuts = cut(0, len(column_units), self._tile_columns)
        columns = [
            (column_units[slice(*place)], part_of(column_lists, place), first_column_id + place[0]) for place in cuts
        ]
        panels = cut(0, len(row_units), self._tile_rows)
        # The panels with the same launches. The first panel also seeds the columns' thresholds, and the last panel
        # may have fewer rows.
        alike = range(1, len(row_units) // self._tile_rows) if self._workspace is not None else range(0)
        if len(alike) < 2:
            alike = range(0)
        with self._on_streams():
            for k, (first, last) in enumerate(panels):
                if k not in alike:
                    rows = part_of(row_lists, (first, last))
                    self._panel(row_units[first:last], rows, first_row_id + first, columns, seed_columns=first == 0)
        if alike:
            self._repeat(alike, row_units, row_lists, first_row_id, columns)
        with self._on_streams():
            self._finish(row_lists)
            self._finish(column_lists)

    def _panel(
        self,
        row_units: Any,
        rows: CandidateLists,
        first_row_id: int,
        columns: list[tuple[Any, CandidateLists, int]],
        seed_columns: bool,
        panel: Any = None,
    ) -> None:
        for k, (column_units, lists, first_column_id) in enumerate(columns):
            ids = (first_row_id, first_column_id)
            self._offer(row_units, column_units, rows, lists, ids, k == 0, seed_columns, panel)

    def _repeat(
        self,
        panels: range,
        row_units: Any,
        row_lists: CandidateLists,
        first_row_id: int,
        columns: list[tuple[Any, CandidateLists, int]],
    ) -> None:
        """Search the panels with the given numbers, which have all their rows, by one recorded graph."""
        xp, height = self._xp, self._tile_rows
        numbers = xp.asarray([(k * height, k * height) for k in panels], dtype=np.int32)
        units, panel = xp.empty_like(row_units[:height]), xp.empty_like(numbers[0])

        def work() -> None:
            with self._on_streams():
                self._panel(units, row_lists, first_row_id, columns, seed_columns=False, panel=panel)

        before, self._overlap = (
            self._overlap,
            Overlap(xp) if self._overlap else None,
        )  # a recording cannot wait for earlier work
        try:
            with recorded_graph(xp, work) as launch:
                for k, own_numbers in zip(panels, numbers, strict=True):
                    xp.copyto(units, row_units[k * height : (k + 1) * height])
                    xp.copyto(panel, own_numbers)
                    launch()
        finally:
            self._overlap = before

    def _offer(
        self,
        row_units: Any,
        column_units: Any,
        rows: CandidateLists,
        columns: CandidateLists | None,
        ids: tuple[int, int],
        seed_rows: bool,
        seed_columns: bool,
        panel: Any = None,
    ) -> None:
        """Multiply and scan one tile. While a graph is recorded, `panel` is the one of `scan_tile`, else null."""
        place = self._turn % len(self._buffers)
        self._turn += 1
        scores = self._buffers[place][: len(row_units), : len(column_units)]
        with self._overlap.product(place) if self._overlap else contextlib.nullcontext():
            workspace = None if panel is None else self._workspace
            multiply_fp16(row_units, column_units, scores, self._width, workspace)
        with self._overlap.lists(place) if self._overlap else contextlib.nullcontext():
            if seed_rows:
                seed_thresholds(scores, rows, True, self._num_neighbors, *ids, panel)
            if seed_columns and columns is not None:
                seed_thresholds(scores, columns, False, self._num_neighbors, *ids)
            scan_tile(scores, rows, ids[0], columns, ids[1], panel)
            trigger = rows.ids.shape[1] // 2  # the other half of a list's places is room for the next tile
            compact_tile(scores, rows, ids[0], columns, ids[1], self._num_neighbors, trigger, panel)

    def _finish(self, lists: CandidateLists) -> None:
        with self._overlap.list_stream if self._overlap else contextlib.nullcontext():
            compact_lists(lists, self._num_neighbors)

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

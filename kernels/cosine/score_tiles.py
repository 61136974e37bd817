"""Products of blocks of unit rows, tile by tile, offered to candidate lists: each pair of items once.

cos(i, j) = cos(j, i), so a tile above the diagonal serves its rows and its columns, and half the products
that a plain all-pairs search makes are enough. A tile is scanned while it is still in cache and never
written anywhere else. With several threads the ranges are cut into bands, and the bands that are worked on
at the same time are disjoint, so the lists need no locks and the result does not depend on timing.

Legend: d width, q x b scores of a tile, H neighbours asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kernels.candidate_lists import CandidateLists
from kernels.cosine.threshold_scan import scan_both, scan_diagonal

# Rows and columns of a tile: large enough for the GEMM's full speed, and 16 MiB of scores are scanned while they are in
# the last level of cache (512 to 2048 measured, docs/log.md).
TILE_ROWS = 2048
# Tiles of odd sizes cost the GEMM a tenth of its speed.
_ALIGNMENT = 64

Band = tuple[int, int]


def scan_triangle(
    units: np.ndarray, lists: CandidateLists, first_id: int, num_best: int, scale: float = 1.0, threads: int = 1
) -> None:
    """Offer every pair of different items of one range to the lists of both.

    Args:
        units: float32 [n, d], the rows; row r is the item at position first_id + r and has lists row r.
        num_best: H. scale: what a product of two rows is multiplied with to be a score.
        threads: Python threads, each with its own tiles; the BLAS runs single-threaded in each.
    """

    def scan(scores: np.ndarray, row: int, column: int) -> None:
        if row == column:
            scan_diagonal(scores, lists, row, first_id + row, num_best)
        else:
            scan_both(scores, lists, row, first_id + row, lists, column, first_id + column, num_best)

    def work(pair: tuple[Band, Band], product: Product) -> None:
        for rows, columns in _tiles(*pair, diagonal=pair[0] == pair[1]):
            scan(product(rows, columns), rows[0], columns[0])

    rounds = triangle_rounds(len(units), threads)
    _run_rounds(rounds, work, units, units, scale, threads)


def scan_rectangle(
    row_units: np.ndarray,
    row_lists: CandidateLists,
    first_row_id: int,
    column_units: np.ndarray,
    column_lists: CandidateLists,
    first_column_id: int,
    num_best: int,
    scale: float = 1.0,
    threads: int = 1,
) -> None:
    """Offer every pair of an item of one range and an item of another to the lists of both (see `scan_triangle`)."""

    def work(pair: tuple[Band, Band], product: Product) -> None:
        for rows, columns in _tiles(*pair, diagonal=False):
            first = (row_lists, rows[0], first_row_id + rows[0])
            second = (column_lists, columns[0], first_column_id + columns[0])
            scan_both(product(rows, columns), *first, *second, num_best)

    row_bands, column_bands = bands(len(row_units), threads), bands(len(column_units), threads)
    # A Latin square: in each round every band of rows meets another band of columns.
    rounds = [[(row_bands[k], column_bands[(k + shift) % threads]) for k in range(threads)] for shift in range(threads)]
    _run_rounds(rounds, work, row_units, column_units, scale, threads)


def bands(num_rows: int, count: int) -> list[Band]:
    """`count` consecutive ranges of about equal size; edges are multiples of _ALIGNMENT, and some may be empty."""
    step = math.gcd(TILE_ROWS, _ALIGNMENT)  # so that a tile is never cut larger than TILE_ROWS
    groups = -(-num_rows // step)
    edges = [min(num_rows, groups * k // count * step) for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def triangle_rounds(num_rows: int, threads: int) -> list[list[tuple[Band, Band]]]:
    """All unordered pairs of bands, with themselves too, in rounds of at most `threads` pairs without a common band."""
    if threads == 1:
        return [[(band, band)] for band in bands(num_rows, 1)]
    count = 2 * threads
    cut = bands(num_rows, count)
    diagonal = [(band, band) for band in cut]
    rounds = [diagonal[:threads], diagonal[threads:]]
    # A round-robin tournament: one team stays, the others move on by one place.
    places = list(range(count))
    for _ in range(count - 1):
        pairs = [sorted((places[k], places[-1 - k])) for k in range(threads)]
        rounds.append([(cut[low], cut[high]) for low, high in pairs])
        places = [places[0], places[-1], *places[1:-1]]
    return rounds


class Product:
    """Scores of a tile in a buffer that is used again for the next."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, scale: float) -> None:
        import torch

        self._torch = torch
        self._rows, self._columns = torch.from_numpy(rows), torch.from_numpy(columns)
        self._scale = scale
        self._buffer = torch.empty(TILE_ROWS * TILE_ROWS, dtype=torch.float32)

    def __call__(self, rows: Band, columns: Band) -> np.ndarray:
        """Scaled products float32 [q, b]; valid until the next call."""
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        out = self._buffer[: shape[0] * shape[1]].view(shape)
        left, right = self._rows[slice(*rows)], self._columns[slice(*columns)].T
        # torch's GEMM rather than NumPy's: 10% faster on one thread with the wheels of both.
        self._torch.addmm(out, left, right, beta=0, alpha=self._scale, out=out)
        return out.numpy()


def _tiles(rows: Band, columns: Band, diagonal: bool) -> Iterator[tuple[Band, Band]]:
    """Tiles of a pair of bands; of a band with itself (`diagonal`), those on and above the diagonal."""
    row_tiles, column_tiles = (_cut(band) for band in (rows, columns))
    for index, row_tile in enumerate(row_tiles):
        for column_tile in column_tiles[index if diagonal else 0 :]:
            yield row_tile, column_tile


def _cut(band: Band) -> list[Band]:
    """A band in tiles, about equal and at most TILE_ROWS."""
    begin, end = band
    count = -(-(end - begin) // TILE_ROWS)
    return [(begin + low, begin + high) for low, high in bands(end - begin, count)] if count else []


def _run_rounds(
    rounds: list[list[tuple[Band, Band]]],
    work: Callable[[tuple[Band, Band], Product], None],
    rows: np.ndarray,
    columns: np.ndarray,
    scale: float,
    threads: int,
) -> None:
    import torch

    before = torch.get_num_threads()

    def run(pairs: list[tuple[Band, Band]], place: int) -> None:
        torch.set_num_threads(1)  # of this thread; the others have their own tiles
        if place < len(pairs):
            work(pairs[place], products[place])

    products = [Product(rows, columns, scale) for _ in range(threads)]
    try:
        if threads == 1:
            for pairs in rounds:
                run(pairs, 0)
            return
        with ThreadPoolExecutor(threads) as pool:
            for pairs in rounds:
                for done in [pool.submit(run, pairs, place) for place in range(threads)]:
                    done.result()
    finally:
        torch.set_num_threads(before)

"""Compute approximate scores tile by tile with a GEMM, and offer each tile to candidate lists.

cos(i, j) = cos(j, i), so a tile is offered to the lists of its rows and of its columns. Each pair of items is scored
once, which halves the products of an all-pairs search. A tile is scanned while it is in cache, and is stored nowhere
else. With several threads, ranges are cut into bands. Threads that run at the same time work on disjoint bands, so
the lists need no locks and the result does not depend on timing.

To *offer* a score to a list is to add it to the list if it reaches the list's threshold.

Legend: d width, q x b scores of a tile, H requested neighbours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kernels.candidate_lists import CandidateLists
from kernels.cosine.threshold_scan import scan_both, scan_diagonal

# Rows and columns of a tile. Tiles of this size run the GEMM at full speed, and their 16 MiB of scores are scanned
# while they are in the last level of cache (512 to 2048 measured, docs/log.md).
TILE_ROWS = 2048
# The GEMM is a tenth slower on tiles whose sizes are not multiples of this.
_ALIGNMENT = 64

Band = tuple[int, int]


def scan_triangle(
    units: np.ndarray, lists: CandidateLists, first_id: int, num_best: int, scale: float = 1.0, threads: int = 1
) -> None:
    """Offer the score of every pair of different items of one range to the lists of both items.

    Args:
        units: float32 [n, d], the rows; row r is the item at position first_id + r.
        lists: n lists; list r belongs to row r.
        first_id: position of the first row.
        num_best: H.
        scale: factor that turns a product of two rows into a score.
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
    """Offer the score of every pair between two ranges to the lists of both items; see `scan_triangle`."""

    def work(pair: tuple[Band, Band], product: Product) -> None:
        for rows, columns in _tiles(*pair, diagonal=False):
            first = (row_lists, rows[0], first_row_id + rows[0])
            second = (column_lists, columns[0], first_column_id + columns[0])
            scan_both(product(rows, columns), *first, *second, num_best)

    row_bands, column_bands = bands(len(row_units), threads), bands(len(column_units), threads)
    # A Latin square: in each round every band of rows meets a different band of columns.
    rounds = [[(row_bands[k], column_bands[(k + shift) % threads]) for k in range(threads)] for shift in range(threads)]
    _run_rounds(rounds, work, row_units, column_units, scale, threads)


def bands(num_rows: int, count: int) -> list[Band]:
    """Cut rows into `count` consecutive ranges of about equal size. Edges are multiples of _ALIGNMENT.

    Some ranges may be empty.
    """
    step = math.gcd(TILE_ROWS, _ALIGNMENT)  # so that no tile has more than TILE_ROWS rows
    groups = -(-num_rows // step)
    edges = [min(num_rows, groups * k // count * step) for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def triangle_rounds(num_rows: int, threads: int) -> list[list[tuple[Band, Band]]]:
    """Return all unordered pairs of bands, pairs of a band with itself included, in rounds.

    The pairs of a round, at most `threads`, have no band in common.
    """
    if threads == 1:
        return [[(band, band)] for band in bands(num_rows, 1)]
    count = 2 * threads
    cut = bands(num_rows, count)
    diagonal = [(band, band) for band in cut]
    rounds = [diagonal[:threads], diagonal[threads:]]
    # A round-robin tournament: the first place is fixed, and the other bands move on by one place each round.
    places = list(range(count))
    for _ in range(count - 1):
        pairs = [sorted((places[k], places[-1 - k])) for k in range(threads)]
        rounds.append([(cut[low], cut[high]) for low, high in pairs])
        places = [places[0], places[-1], *places[1:-1]]
    return rounds


class Product:
    """A function that computes the scores of a tile, in a buffer that is reused for the next tile."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, scale: float) -> None:
        import torch

        self._torch = torch
        self._rows, self._columns = torch.from_numpy(rows), torch.from_numpy(columns)
        self._scale = scale
        self._buffer = torch.empty(TILE_ROWS * TILE_ROWS, dtype=torch.float32)

    def __call__(self, rows: Band, columns: Band) -> np.ndarray:
        """Return the scaled products, float32 [q, b]; they are valid until the next call."""
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        out = self._buffer[: shape[0] * shape[1]].view(shape)
        left, right = self._rows[slice(*rows)], self._columns[slice(*columns)].T
        # torch's GEMM is 10% faster than NumPy's on one thread, with the wheels of both.
        self._torch.addmm(out, left, right, beta=0, alpha=self._scale, out=out)
        return out.numpy()


def _tiles(rows: Band, columns: Band, diagonal: bool) -> Iterator[tuple[Band, Band]]:
    """Yield the tiles of a pair of bands; for a band with itself (`diagonal`), only those on and above the diagonal."""
    row_tiles, column_tiles = (_cut(band) for band in (rows, columns))
    for index, row_tile in enumerate(row_tiles):
        for column_tile in column_tiles[index if diagonal else 0 :]:
            yield row_tile, column_tile


def _cut(band: Band) -> list[Band]:
    """Cut a band into tiles of about equal size, at most TILE_ROWS rows each."""
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
        torch.set_num_threads(1)  # a setting of this thread only
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

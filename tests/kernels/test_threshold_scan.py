"""Candidate lists keep every score at or above their threshold; tiles cover every pair once; dots have fixed bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kernels.candidate_lists import SPARE_PLACES, CandidateLists
from kernels.cosine import score_tiles
from kernels.cosine.exact_dots import offer_all, pair_dots, row_hashes, row_squares, rows_equal
from kernels.cosine.exact_ranking import leave_out_copies
from kernels.cosine.score_tiles import scan_rectangle, scan_triangle, triangle_rounds
from kernels.cosine.threshold_scan import compact_lists, offer_entries

BEST = 5


def scores_of(units: np.ndarray) -> np.ndarray:
    scores = units @ units.T
    np.fill_diagonal(scores, -np.inf)
    return scores


def check(lists: CandidateLists, scores: np.ndarray, first_id: int = 0) -> None:
    """Every list that did not overflow holds exactly the scores at or above the highest possible threshold."""
    offsets, ids, values = lists.entries()
    for row, all_scores in enumerate(scores):
        threshold = np.sort(all_scores)[-BEST] - lists.margin[row]
        expected = np.flatnonzero(all_scores >= threshold)
        if lists.overflowed[row]:
            assert len(expected) > SPARE_PLACES
            continue
        part = slice(offsets[row], offsets[row + 1])
        assert sorted(ids[part] - first_id) == expected.tolist()
        np.testing.assert_array_equal(values[part], all_scores[ids[part] - first_id])


@pytest.mark.parametrize(("num_rows", "tile_rows", "threads"), [(7, 3, 1), (300, 1000, 1), (300, 90, 2), (401, 100, 3)])
@pytest.mark.parametrize("levels", [4, 100_000])
def test_triangle_keeps_scores_above_the_threshold(
    num_rows: int, tile_rows: int, threads: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_tiles, "TILE_ROWS", tile_rows)
    rng = np.random.default_rng(num_rows)
    # Whole numbers: products are exact, whoever adds them up; few levels mean many ties and full lists.
    units = rng.integers(-levels, levels + 1, (num_rows, 3)).astype(np.float32) / levels
    units = np.round(units * 64) / 64
    lists = CandidateLists.empty(rng.random(num_rows).astype(np.float32) * 0.05, BEST)
    scan_triangle(units, lists, 1000, BEST, 1.0, threads)
    compact_lists(lists, BEST)
    check(lists, scores_of(units), 1000)
    assert lists.overflowed.any() == (levels == 4 and num_rows > 100)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rectangles_and_merging_equal_the_triangle(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_tiles, "TILE_ROWS", 70)
    rng = np.random.default_rng(1)
    units = np.round(rng.standard_normal((310, 4)) * 64).astype(np.float32) / 64
    margin = np.full(310, 0.01, dtype=np.float32)
    ranges = [(0, 110), (110, 220), (220, 310)]
    parts: list[list[CandidateLists]] = [[] for _ in ranges]
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        # Thresholds of earlier blocks are passed on, as between the rounds of a build.
        sides = [
            (
                units[slice(*ranges[k])],
                CandidateLists.empty(margin[slice(*ranges[k])], BEST, _threshold(parts[k])),
                ranges[k][0],
            )
            for k in sorted({i, j})
        ]
        if i == j:
            scan_triangle(*sides[0], BEST, 1.0, threads)
        else:
            scan_rectangle(*sides[0], *sides[1], BEST, 1.0, threads)
        for k, side in zip(sorted({i, j}), sides, strict=True):
            parts[k].append(side[1])
    scores = scores_of(units)
    for found in (parts, [list(reversed(part)) for part in parts]):
        for k, (begin, end) in enumerate(ranges):
            merged = CandidateLists.empty(margin[begin:end], BEST)
            for part in found[k]:
                offer_entries(merged, *part.entries(), BEST)
            compact_lists(merged, BEST)
            check(merged, scores[begin:end])


def _threshold(parts: list[CandidateLists]) -> np.ndarray | None:
    return np.max([part.threshold for part in parts], axis=0) if parts else None


@pytest.mark.parametrize(("num_rows", "threads"), [(1, 2), (5, 4), (1000, 1), (1000, 2), (999, 5)])
def test_rounds_cover_every_pair_of_bands_once_and_share_none(num_rows: int, threads: int) -> None:
    seen = np.zeros((num_rows, num_rows), dtype=int)
    for pairs in triangle_rounds(num_rows, threads):
        assert len(pairs) <= threads
        rows = [row for pair in pairs for band in set(pair) for row in range(*band)]
        assert len(rows) == len(set(rows))
        for low, high in pairs:
            seen[low[0] : low[1], high[0] : high[1]] += 1
    assert (np.triu(seen) == np.triu(np.ones_like(seen))).all()


def test_torch_keeps_its_threads() -> None:
    import torch

    before = torch.get_num_threads()
    scan_triangle(np.eye(9, dtype=np.float32), CandidateLists.empty(np.zeros(9, dtype=np.float32), 2), 0, 2, 1.0, 3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("width", [1, 31, 32, 63, 100])
def test_dots_add_up_in_the_order_that_is_promised(width: int) -> None:
    rng = np.random.default_rng(width)
    left, right = (np.exp(9 * rng.standard_normal((6, width))).astype(np.float32) for _ in range(2))
    index = np.array([0, 5, 2]), np.array([3, 3, 1])
    expected = []
    for i, j in zip(*index, strict=True):
        lanes = [0.0] * 32
        for k in range(width):
            lanes[k % 32] += float(left[i, k]) * float(right[j, k])
        for step in (16, 8, 4, 2, 1):
            for lane in range(step):
                lanes[lane] += lanes[lane + step]
        expected.append(lanes[0])
    assert pair_dots(left, index[0], right, index[1]).tolist() == expected
    assert row_squares(left)[2] == pair_dots(left, np.array([2]), left, np.array([2]))[0]


def test_full_scoring_equals_sorting() -> None:
    rng = np.random.default_rng(4)
    rows = rng.integers(-2, 3, (90, 3)).astype(np.float32)
    squares = row_squares(rows)
    ids, best = np.full((90, 7), -1, dtype=np.int64), np.full((90, 7), -np.inf)
    for first in (0, 40):
        offer_all(rows, rows[first : first + 40 if first == 0 else 90], squares[first:], first, ids, best)
    dots = rows.astype(np.float64) @ rows.astype(np.float64).T
    keys = np.where(squares > 0, dots * np.abs(dots) / np.maximum(squares, 1), -np.inf)
    np.testing.assert_array_equal(ids, np.argsort(-keys, axis=1, kind="stable")[:, :7])


def test_copies_are_found_by_content_and_the_lowest_stay() -> None:
    rng = np.random.default_rng(3)
    features = rng.integers(-1, 2, (200, 3)).astype(np.float32)
    features[::9] = np.array([0, -0.0, 2], dtype=np.float32)
    features[::18] = np.array([0, 0.0, 2], dtype=np.float32)  # equal to those, with other bits
    squares = row_squares(features)
    squares[11] = 0
    copies, originals = leave_out_copies(features, squares, 3)
    expected = {}
    groups: dict[tuple[float, ...], list[int]] = {}
    for item, row in enumerate((features + 0.0).tolist()):
        if squares[item] > 0:
            groups.setdefault(tuple(row), []).append(item)
            if len(groups[tuple(row)]) > 4:
                expected[item] = groups[tuple(row)][0]
    assert dict(zip(copies.tolist(), originals.tolist(), strict=True)) == expected
    assert (np.diff(copies) > 0).all()
    assert row_hashes(features, np.array([0, 9]))[0] == row_hashes(features, np.array([0, 9]))[1]
    assert rows_equal(features, np.array([0, 1]), np.array([9, 0])).tolist() == [True, False]

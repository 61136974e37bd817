"""Exact neighbours: ids, ties and scores equal the double loop, whatever the tiling, threads and precision."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.errors import InputError
from kernels import reference
from kernels.cosine import score_tiles
from kernels.cosine.cosine_topk import Precision, cosine_neighbors, error_bounds, product_scale, square_norms, unit_rows


def whole_numbers(num_items: int, width: int, seed: int, largest: int = 3) -> np.ndarray:
    """Rows with duplicates, multiples of one another, and zero rows."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-largest, largest + 1, (num_items, width)).astype(np.float32)
    if num_items > 10:
        features[num_items // 2 : num_items // 2 + 4] = 3 * features[:4]
        features[-3:] = features[1]
        features[5::17] = 0
    return features


def near_ties(num_items: int, width: int) -> np.ndarray:
    """Rows of which a tenth differ from another by about float32's rounding."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((num_items, width)).astype(np.float32)
    tenth = num_items // 10
    features[-tenth:] = features[:tenth] * (1 + 1e-7 * rng.standard_normal((tenth, width)))
    return features


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize(
    ("num_items", "width", "num_neighbors"), [(1, 4, 3), (5, 3, 9), (63, 2, 5), (63, 8, 1), (150, 5, 7)]
)
def test_equals_double_loop_for_any_tiling(
    num_items: int, width: int, num_neighbors: int, include_self: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = whole_numbers(num_items, width, seed=num_items)
    ids, cosines = reference.cosine_topk(features, num_neighbors, include_self)
    for tile_rows, threads, precision in [
        (1, 1, "float32"),
        (7, 3, "float16"),
        (64, 2, "float32"),
        (1000, 1, "float16"),
    ]:
        monkeypatch.setattr(score_tiles, "TILE_ROWS", tile_rows)
        found_ids, found_scores, _ = cosine_neighbors(features, num_neighbors, include_self, precision, threads)
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_array_equal(found_scores, cosines.astype(np.float32))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_equals_vectorised_rule_at_two_thousand_items(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    features = whole_numbers(2000, 16, seed=3)
    wide = features.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    dots = wide @ wide.T  # whole numbers: exact in any order
    keys = np.where(squares > 0, dots * np.abs(dots) / np.maximum(squares, 1), -np.inf)
    np.fill_diagonal(keys, -np.inf)
    expected = np.argsort(-keys, axis=1, kind="stable")[:, :10]
    expected[squares == 0] = -1
    expected[squares == 0, 0] = np.flatnonzero(squares == 0)
    for tile_rows, threads in [(100, 1), (128, 2), (1024, 3)]:
        monkeypatch.setattr(score_tiles, "TILE_ROWS", tile_rows)
        ids, _, certified = cosine_neighbors(features, 10, False, precision, threads)
        np.testing.assert_array_equal(ids, expected)
        assert certified.mean() > 0.9


def test_bytes_do_not_depend_on_tiling_threads_or_precision_for_any_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    features = near_ties(700, 33)
    results = []
    for tile_rows, threads, precision in [(1000, 1, "float32"), (110, 2, "float16"), (64, 3, "float32")]:
        monkeypatch.setattr(score_tiles, "TILE_ROWS", tile_rows)
        results.append(cosine_neighbors(features, 6, True, precision, threads))
    for ids, scores, _ in results[1:]:
        assert ids.tobytes() == results[0][0].tobytes()
        assert scores.tobytes() == results[0][1].tobytes()


def test_rows_without_a_certificate_are_exact_too() -> None:
    # A hundred rows within float32's rounding of one another: nobody's list has room for that.
    rng = np.random.default_rng(5)
    features = rng.integers(-9, 10, (400, 64)).astype(np.float32)
    features[100:200] = features[100] * 1000
    features[100:200, 0] += np.arange(100)
    ids, _, certified = cosine_neighbors(features, 8, False)
    assert not certified[100:200].any()
    assert certified[200:].all()
    np.testing.assert_array_equal(ids, reference.cosine_topk(features, 8, False)[0])


def test_mathematical_ties_tie_across_norms() -> None:
    # cos = 1/sqrt(2) for all: dot / norm differs in the last bit between (1, 1) and (3, 3).
    features = np.array([[1, 0], [7, 7], [3, 3], [1, 1], [5, 5]], dtype=np.float32)
    ids, _, _ = cosine_neighbors(features, 4, False)
    assert ids[0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("include_self", [True, False])
def test_copies_are_each_others_neighbours_by_id_and_need_no_fallback(include_self: bool) -> None:
    rng = np.random.default_rng(2)
    features = rng.integers(-5, 6, (300, 12)).astype(np.float32)
    features[rng.choice(300, 120, replace=False)] = features[7]
    features[rng.choice(300, 60, replace=False)] = -0.0
    ids, cosines = reference.cosine_topk(features, 4, include_self)
    found, scores, certified = cosine_neighbors(features, 4, include_self)
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_array_equal(scores, cosines.astype(np.float32))
    assert certified.all()
    if include_self:
        assert (found == np.arange(300)[:, None]).any(axis=1).all()


def test_missing_items_are_no_neighbours_and_have_none() -> None:
    features = np.array([[1, 0], [0, 0], [-1, 0]], dtype=np.float32)
    ids, scores, _ = cosine_neighbors(features, 3)
    assert ids.tolist() == [[0, 2, -1], [1, -1, -1], [2, 0, -1]]
    np.testing.assert_array_equal(scores, [[1, -1, 0], [0, 0, 0], [1, -1, 0]])


def test_no_items_and_none_present() -> None:
    assert cosine_neighbors(np.zeros((0, 3), dtype=np.float32), 2)[0].shape == (0, 2)
    assert cosine_neighbors(np.zeros((2, 3), dtype=np.float32), 2)[0].tolist() == [[0, -1], [1, -1]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_refused(bad: float) -> None:
    features = np.ones((4, 2), dtype=np.float32)
    features[2, 1] = bad
    with pytest.raises(InputError, match="row 2: holds NaN or infinity"):
        cosine_neighbors(features, 1)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("width", [1, 64, 1000])
def test_rounding_stays_under_the_bound(width: int, precision: Precision) -> None:
    rng = np.random.default_rng(width)
    features = np.exp(3 * rng.standard_normal((40, width))).astype(np.float32)
    wide = features.astype(np.float64)
    exact = (wide @ wide.T) / np.sqrt((wide * wide).sum(axis=1)[:, None] * (wide * wide).sum(axis=1))
    units, residuals = unit_rows(features, square_norms(features), precision)
    bounds = error_bounds(residuals, float(residuals.max()), width, precision)
    error = np.abs((units @ units.T).astype(np.float64) * product_scale(width, precision) - exact)
    assert (error.max(axis=1) < bounds).all()
    # The bound is of use: not orders of magnitude above what happens where it matters most.
    assert bounds.max() < (2e-3 if precision == "float16" else 2e-4)


def test_unit_rows_keep_zero_rows_and_use_float16_numbers() -> None:
    rows = np.array([[0, 0], [3, 4]], dtype=np.float32)
    units, residuals = unit_rows(rows, square_norms(rows))
    np.testing.assert_array_equal(units, np.array([[0, 0], [0.6, 0.8]], dtype=np.float32))
    assert not residuals.any()
    units, residuals = unit_rows(rows, square_norms(rows), "float16")
    np.testing.assert_array_equal(units, units.astype(np.float16))
    np.testing.assert_allclose(units[1], np.sqrt(2) * np.array([0.6, 0.8]), rtol=1e-3)
    assert residuals[0] == 0 < residuals[1] < 2**-11

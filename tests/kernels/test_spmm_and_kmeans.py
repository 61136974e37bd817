"""Injection and the two halves of a Lloyd step, against loops; and where the kernels run."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import scipy.sparse

from contracts.errors import InputError
from kernels import reference
from kernels.backend import array_module
from kernels.kmeans import center_sums, nearest_centers
from kernels.spmm import injected_rows


def random_rows(num_items: int, seed: int) -> scipy.sparse.csr_matrix:
    matrix = scipy.sparse.random(num_items, num_items, 0.2, "csr", dtype=np.float32, random_state=seed)
    matrix.sort_indices()
    return matrix


def blocked(matrix: scipy.sparse.csr_matrix, features: np.ndarray, mu: float, rows: int, gathered: int) -> np.ndarray:
    parts = []
    for first in range(0, len(features), rows):
        last = min(first + rows, len(features))
        part = matrix[first:last]
        indptr, indices = part.indptr.astype(np.int64), part.indices.astype(np.int64)
        parts.append(injected_rows(indptr, indices, part.data, features, slice(first, last), mu, max_gathered=gathered))
    return np.concatenate(parts)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_injection_has_the_same_bytes_for_any_blocking(dtype: type) -> None:
    matrix = random_rows(63, 0)
    features = np.random.default_rng(0).standard_normal((63, 5)).astype(dtype)
    whole = blocked(matrix, features, 0.2, 63, 1 << 15)
    for rows, gathered in [(1, 1), (7, 20), (40, 3)]:
        assert blocked(matrix, features, 0.2, rows, gathered).tobytes() == whole.tobytes()
    expected = reference.injected(matrix.toarray(), features, 0.2)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, expected.astype(np.float32))


def test_no_injection_is_the_features() -> None:
    features = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.testing.assert_array_equal(blocked(random_rows(3, 1), features, 0, 2, 4), features.astype(np.float32))


def test_lloyd_step_equals_loops_with_ties() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(-2, 3, (63, 2)).astype(np.float64)
    centers = np.array([[0, 0], [2, 0], [0, 0], [0, 2], [9, 9]], dtype=np.float64)
    nearest, distances = nearest_centers(points, centers)
    sums, counts = center_sums(points, nearest, len(centers))
    expected, moved = reference.kmeans_step(points, centers)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_array_equal(distances, ((points - centers[expected]) ** 2).sum(axis=1))
    assert counts.tolist() == np.bincount(expected, minlength=5).tolist()
    assert counts[2] == counts[4] == 0
    used = counts > 0
    np.testing.assert_array_equal(sums[used] / counts[used, None], moved[used])


def test_difference_within_rounding_is_a_tie() -> None:
    # A BLAS may give two identical centres scores a last bit apart: the lowest must win all the same.
    nearest, _ = nearest_centers(np.array([[4.0]]), np.array([[1.0], [1 + 2.0**-52]]))
    assert nearest.tolist() == [0]


def test_backend_by_name() -> None:
    assert array_module("cpu") is np
    if importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is installed: whether cuda works depends on the machine")
    assert array_module("auto") is np
    with pytest.raises(InputError, match="backend=cuda: CuPy is not installed"):
        array_module("cuda")

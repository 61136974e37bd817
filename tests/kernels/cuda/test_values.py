"""Kernels whose bits are defined: dots, unit rows, injected rows, pair entries."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import spmm
from kernels.backend import to_host
from kernels.cooccurrence import pair_counts
from kernels.cosine import exact_dots
from kernels.cuda.gemm import multiply_fp16
from kernels.cuda.launchers import bucket_pairs, injected_rows, pair_dots, unit_rows
from tests.kernels.cuda import twins


def wild(rng, shape):
    """Float32 of very different sizes, where every other order of summation gives other bits; some are subnormal."""
    sizes = rng.choice(10.0 ** np.array([-42, *range(-9, 9)]), shape)
    return (rng.standard_normal(shape) * sizes).astype(np.float32)


@pytest.mark.parametrize("width", [1, 31, 32, 63, 100, 256, 1000])
def test_pair_dots_have_the_bits_of_the_cpu(xp, width):
    rng = np.random.default_rng(width)
    left, right = wild(rng, (9, width)), wild(rng, (7, width))
    i, j = rng.integers(0, 9, 63), rng.integers(0, 7, 63)
    found = to_host(pair_dots(*(xp.asarray(array) for array in (left, i, right, j))))
    np.testing.assert_array_equal(found, [twins.dot(left[a], right[b]) for a, b in zip(i, j, strict=True)])
    np.testing.assert_array_equal(found, exact_dots.pair_dots(left, i, right, j))


@pytest.mark.parametrize(("n", "width"), [(1, 1), (63, 7), (5, 64), (33, 100), (4, 1000)])
def test_unit_rows(xp, n, width):
    rng = np.random.default_rng(width)
    rows = wild(rng, (n, width))
    rows[n // 2] = 0
    rows[-1] = 1e-38 if n > 2 else 1e38
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    units, residuals = (to_host(array) for array in unit_rows(xp.asarray(rows), xp.asarray(squares)))
    assert units.shape == (n, -(-width // 8) * 8)
    assert (units[:, width:] == 0).all()
    for i in range(n):
        expected, residual = twins.unit_row(rows[i], squares[i])
        np.testing.assert_array_equal(units[i, :width], expected)
        assert residuals[i] == residual
        if squares[i] > 0:
            exact = rows[i].astype(np.longdouble) / np.sqrt((rows[i].astype(np.longdouble) ** 2).sum())
            off = np.sqrt(((units[i, :width] / np.sqrt(np.longdouble(width)) - exact) ** 2).sum())
            assert off <= residuals[i] <= 1.001 * off + 1e-10


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [1, 8, 63, 100, 256, 300])
def test_injected_rows_have_the_bits_of_the_cpu(xp, width, dtype):
    rng = np.random.default_rng(width)
    features = rng.standard_normal((40, width)).astype(dtype) if dtype == np.float16 else wild(rng, (40, width))
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 12, 13))])
    columns, weights = rng.integers(0, 40, indptr[-1]), wild(rng, indptr[-1])
    weights[indptr[3] : indptr[4]] = 1e-41
    block = slice(11, 24)
    arrays = [xp.asarray(array) for array in (indptr, columns, weights, features)]
    found = to_host(injected_rows(*arrays, arrays[3][block], 0.37))
    cpu = spmm.injected_rows(indptr, columns, weights, features, block, 0.37)
    np.testing.assert_array_equal(found, cpu)
    own = features[block]
    for r in range(13):
        part = slice(indptr[r], indptr[r + 1])
        expected = twins.injected_row(columns[part], weights[part], features, own[r], 0.37)
        np.testing.assert_array_equal(found[r], expected)


def listed(entries):
    rows, starts, columns, gaps = (to_host(array) for array in entries)
    assert (np.diff(starts) > 0).all()
    assert len(columns) == len(gaps) == starts[-1]
    return sorted(zip(np.repeat(rows, np.diff(starts)).tolist(), columns.tolist(), gaps.tolist(), strict=True))


@pytest.mark.parametrize(
    ("lengths", "max_gap"), [([0, 3, 1, 0, 70, 2], 9), ([300], 299), ([40], 70000), ([], 3), ([1], 1)]
)
@pytest.mark.parametrize("part", [None, (5, 31)])
def test_bucketed_pairs(xp, lengths, max_gap, part):
    rng = np.random.default_rng(max_gap)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(0, 25, offsets[-1]).astype(np.int32) * 1000
    centers = None if part is None else (min(part[0], len(items)), min(part[1], len(items)))
    entries = bucket_pairs(xp.asarray(items), xp.asarray(offsets), max_gap, centers)
    assert entries.gaps.dtype == pair_counts.gap_dtype(max_gap)
    found = listed(entries)
    assert found == twins.pair_entries(items, offsets, max_gap, centers or (0, len(items)))
    assert found == listed(pair_counts.bucket_pairs(items, offsets, max_gap, centers))


@pytest.mark.parametrize(("q", "b", "width"), [(1, 1, 8), (63, 100, 48), (130, 257, 384)])
def test_products_of_whole_numbers_are_exact(xp, q, b, width):
    if xp is np:
        pytest.skip("cuBLAS needs a GPU")
    rng = np.random.default_rng(q)
    left, right = (rng.integers(-8, 9, (n, width)).astype(np.float16) for n in (q, b))
    buffer = xp.zeros((q + 1, -(-b // 4) * 4), dtype=xp.float32)
    # The divisor is a power of two, so that nothing is rounded.
    multiply_fp16(xp.asarray(left), xp.asarray(right), buffer[:q, :b], 64)
    found = to_host(buffer)
    np.testing.assert_array_equal(found[:q, :b], left.astype(np.float32) @ right.astype(np.float32).T / 64)
    assert (found[q] == 0).all()

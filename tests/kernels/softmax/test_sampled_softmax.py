"""The softmax kernels against their float64 twin, at sizes that fill no tile, and at the edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels.softmax.sampled_softmax import dot_precision, mark, mark_bytes
from kernels.softmax.tiles import Tiles, fewest_rounds, parts_of, split_size, tiles_of
from tests.kernels.softmax.cases import a_case, assert_close, by_kernel, by_twin, padded
from tests.model.test_sampled_softmax import LargestTensor

# The interpreter computes with NumPy, which warns of log(0) and of inf - inf.
# Many cases of about half a second.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")]
# Relative to the largest gradient: float32 has 24 bits, and sums have up to a few hundred terms.
TOLERANCE = 3e-6
SMALL = Tiles(head=16, tail=0, kept=16, passed=16, warps=4, stages=1)


def test_the_twins_gradients_are_its_finite_differences() -> None:
    case = a_case(4, 6, 3, same=2, seen=3)
    case = replace(case, **{name: getattr(case, name).astype(np.float64) for name in ("users", "targets", "columns")})
    solved = by_twin(case)
    step = 1e-6
    for name in ("users", "targets", "columns"):
        for place in np.ndindex(getattr(case, name).shape):
            ends = []
            for sign in (1, -1):
                moved = getattr(case, name).copy()
                moved[place] += sign * step
                ends.append(by_twin(replace(case, **{name: moved})).loss)
            assert abs((ends[0] - ends[1]) / (2 * step) - getattr(solved, name)[place]) < 1e-8, (name, place)
    assert case.gain is not None
    ends = [by_twin(replace(case, gain=case.gain + sign * step)).loss for sign in (1, -1)]
    assert abs((ends[0] - ends[1]) / (2 * step) - solved.gain) < 1e-8


@pytest.mark.parametrize(("same", "seen"), [(0, 0), (3, 0), (0, 5), (6, 9)])
@pytest.mark.parametrize(("num_rows", "num_columns", "width"), [(70, 150, 64), (67, 65, 75), (5, 97, 300), (1, 1, 1)])
def test_loss_and_gradients_equal_the_twins(
    device: torch.device, num_rows: int, num_columns: int, width: int, same: int, seen: int
) -> None:
    case = a_case(num_rows, num_columns, width, same=same, seen=seen)
    assert_close(by_kernel(case, device), by_twin(case), TOLERANCE)


@pytest.mark.parametrize("scale", [0.01, 20.0])
def test_flat_and_peaked_softmaxes_equal_the_twins(device: torch.device, scale: float) -> None:
    case = a_case(20, 90, 16, same=3, seen=3, scale=scale)
    # Scores of 60 have errors of 4e-6, and so have the probabilities.
    assert_close(by_kernel(case, device), by_twin(case), TOLERANCE * max(1.0, scale))


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize(("num_rows", "num_columns", "width"), [(67, 150, 64), (10, 70, 300)])
def test_tf32_stays_close_to_the_twin(device: torch.device, num_rows: int, num_columns: int, width: int) -> None:
    case = a_case(num_rows, num_columns, width, same=6, seen=9)
    actual, expected = by_kernel(case, device), by_twin(case)
    assert_close(actual, expected, 4e-3)
    assert np.abs(actual.columns - expected.columns).max() > 1e-5  # it is TF32


def test_bfloat16_stays_close_to_the_twin(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("the interpreter multiplies the bits of bfloat16 as whole numbers")
    case = a_case(67, 150, 64, same=6, seen=9)
    names = ("users", "targets", "columns")
    case = replace(case, **{name: torch.tensor(getattr(case, name)).bfloat16().float().numpy() for name in names})
    assert_close(by_kernel(case, device, dtype=torch.bfloat16), by_twin(case), 2e-2)


@pytest.mark.parametrize(("num_rows", "num_columns"), [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_sum_gives_zeros(device: torch.device, num_rows: int, num_columns: int) -> None:
    solved = by_kernel(a_case(num_rows, num_columns, 8), device)
    assert solved.loss == 0
    for grad in (solved.users, solved.targets, solved.columns):
        assert not grad.any()  # NaN counts as any


def test_columns_without_weight_are_in_no_sum(device: torch.device) -> None:
    case = a_case(20, 50, 16, seen=3)
    weights = case.log_weights.copy()
    weights[:33] = -np.inf  # two whole tiles, and a part of one
    case = replace(case, log_weights=weights)
    solved = by_kernel(case, device, SMALL)
    assert_close(solved, by_twin(case), TOLERANCE)
    assert not solved.columns[:33].any()
    nothing = replace(case, log_weights=np.full(50, -np.inf, dtype=np.float32))
    solved = by_kernel(nothing, device, SMALL)
    assert solved.loss == 0
    assert not solved.users.any()
    assert not solved.columns.any()


def test_large_weights_do_not_overflow(device: torch.device) -> None:
    case = a_case(20, 30, 16)  # of 64 rows in a tile, 44 are empty
    case = replace(case, log_weights=case.log_weights + np.float32(100))
    # Float32 numbers around 100 are 8e-6 apart.
    assert_close(by_kernel(case, device), by_twin(case), 1e-4)


def test_a_row_whose_only_column_is_its_target_adds_nothing(device: torch.device) -> None:
    case = a_case(3, 1, 8)
    case = replace(case, own=np.zeros(3, dtype=np.int64))
    solved = by_kernel(case, device)
    assert solved.loss == 0
    assert not solved.users.any()
    assert not solved.columns.any()


def test_same_sequence_overrides_any_weight(device: torch.device) -> None:
    case = a_case(9, 20, 8)
    case = replace(case, same=[[3, 3, 7]] * 9, own=np.full(9, -1))
    solved = by_kernel(case, device)
    weights = case.log_weights.copy()
    weights[[3, 7]] = 0
    assert_close(solved, by_twin(replace(case, same=[[]] * 9, log_weights=weights)), TOLERANCE)


def test_averages_of_whole_numbers_are_exact(device: torch.device) -> None:
    """With scores of 0 each of 16 columns has the weight 1/16, and float32 has every number of these sums."""
    rng = np.random.default_rng(0)
    columns = rng.integers(-100, 100, (17, 16)).astype(np.float32)
    case = replace(
        a_case(33, 17, 16),
        users=np.zeros((33, 16), dtype=np.float32),
        targets=np.zeros((33, 16), dtype=np.float32),
        columns=columns,
        log_weights=np.zeros(17, dtype=np.float32),
        own=np.full(33, 4),
    )
    means = np.delete(columns, 4, axis=0).sum(axis=0) / 16
    # The users' gradient is the others' share, 16/17, of their mean. Only the share is rounded, and once the product.
    solved = by_kernel(case, device, replace(SMALL, passed=32))  # all columns in one step
    assert not solved.users[:, means == 0].any()
    shares = solved.users[:, means != 0] / means[means != 0]
    np.testing.assert_allclose(shares, 16 / 17, rtol=2**-22, atol=0)


def test_the_same_bits_come_twice_and_the_tiles_change_only_the_last_ones(device: torch.device) -> None:
    case = a_case(50, 70, 16, same=4, seen=4)
    first, again, other = by_kernel(case, device, SMALL), by_kernel(case, device, SMALL), by_kernel(case, device)
    for name in ("users", "targets", "columns"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.loss, first.gain) == (again.loss, again.gain)
    assert_close(first, other, TOLERANCE)


def test_gradients_are_scaled_by_what_follows(device: torch.device) -> None:
    case = a_case(20, 30, 16, seen=3)
    once, scaled = by_kernel(case, device), by_kernel(case, device, scale=-2.5)
    for name in ("users", "targets", "columns", "gain"):
        np.testing.assert_allclose(getattr(scaled, name), -2.5 * getattr(once, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["users", "targets", "columns"])
def test_what_is_not_finite_makes_the_loss_not_finite(device: torch.device, name: str, value: float) -> None:
    case = a_case(20, 30, 16)
    vectors = getattr(case, name).copy()
    vectors[3, 2] = value
    assert not np.isfinite(by_kernel(replace(case, **{name: vectors}), device).loss)


def test_marks_are_the_pairs(device: torch.device) -> None:
    case = a_case(30, 75, 8, same=20, seen=40)
    none = np.full(30, -1)
    marks = mark(75, padded(case.same, none).to(device), padded(case.seen, none).to(device))
    assert marks is not None
    assert marks.numel() * 4 == mark_bytes(30, 75)
    bits = (marks.cpu()[:, :, None] >> (2 * torch.arange(16))) & 3
    found = bits.reshape(30, -1)
    for row in range(30):
        expected = [(c in case.same[row]) + 2 * (c in case.seen[row]) for c in range(75)]
        assert found[row, :75].tolist() == expected
    assert not found[:, 75:].any()
    assert mark(75, None, None) is None


def test_no_tensor_has_an_element_for_each_pair(device: torch.device) -> None:
    case = a_case(200, 300, 8, same=3)
    with LargestTensor() as largest:
        by_kernel(case, device)
    # The interpreter copies memory as bytes, of which all logits would be 240,000.
    assert 1000 < largest.numel < 200 * 300 / 2


@pytest.mark.parametrize(
    ("width", "parts"), [(1, (16, 0)), (16, (16, 0)), (64, (64, 0)), (75, (64, 16)), (100, (128, 0)), (300, (256, 64))]
)
def test_vectors_are_read_in_two_powers_of_two(width: int, parts: tuple[int, int]) -> None:
    assert parts_of(width) == parts


def test_every_width_up_to_320_has_tiles() -> None:
    for width in range(1, 321):
        for shared in (100, 164, 228):
            tiles = tiles_of(width, shared * 1024)
            assert tiles is not None
            assert tiles.head + tiles.tail >= width
            assert tiles.tail == 0 or 16 <= tiles.tail < tiles.head
            assert tiles.head + tiles.tail <= 4 / 3 * width + 15
    assert tiles_of(321, 228 * 1024) is None


def test_splits_are_whole_steps_and_cover_everything() -> None:
    for num_passed in (0, 1, 16, 17, 31, 32, 100):
        size, splits = split_size(40, num_passed, SMALL, torch.device("cpu"))
        assert size % SMALL.passed == 0
        assert size * splits >= num_passed > size * (splits - 1) or num_passed == 0
        assert 1 <= splits <= 2


@pytest.mark.parametrize(
    ("num_tiles", "slots", "splits"),
    [(76, 264, 3), (256, 264, 1), (76, 132, 3), (256, 132, 1), (4, 264, 66), (900, 264, 2)],
)
def test_splits_fill_the_multiprocessors_in_the_least_time(num_tiles: int, slots: int, splits: int) -> None:
    assert fewest_rounds(num_tiles, slots) == splits


def test_products_are_as_precise_as_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision, expected in (("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda precision=precision: precision)
        assert dot_precision() == expected

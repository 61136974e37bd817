"""The emulator notices what would hang, race or corrupt on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.cuda.emulator import Emulator, compiler

SOURCE = """
extern "C" __global__ void __launch_bounds__(64) meet(int kind, int* out) {
    __shared__ int seen;
    const int lane = threadIdx.x & 31;
    if (kind == 1 && threadIdx.x == 5) return;
    if (kind == 2 && lane == 5) {
        __syncwarp();
        return;
    }
    if (kind == 3 && threadIdx.x < 32) return;
    atomicAdd(&out[64], (int)__ballot_sync(0xffffffffu, lane < 3));
    if (threadIdx.x == 63) seen = 17;
    __syncthreads();
    out[threadIdx.x] = seen + __shfl_down_sync(0xffffffffu, lane, 16);
}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    if compiler is None:
        pytest.skip("g++ is not installed")
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.cu").write_text(SOURCE)
    return Emulator(folder, folder)


def test_collectives_mean_what_they_mean(small):
    out = np.zeros(65, dtype=np.int32)
    small.launch("small", "meet", (3, 1, 1), 64, (np.int32(0), out))
    lanes = np.arange(32)
    expected = 17 + np.where(lanes < 16, lanes + 16, lanes)
    np.testing.assert_array_equal(out[:64], np.tile(expected, 2))
    assert out[64] == 3 * 64 * 7


@pytest.mark.parametrize(("kind", "message"), [(1, "wait for others|has left"), (2, "met at both"), (3, "has left")])
def test_threads_that_part_ways_are_noticed(small, kind, message):
    with pytest.raises(AssertionError, match=message):
        small.launch("small", "meet", (1, 1, 1), 64, (np.int32(kind), np.zeros(65, dtype=np.int32)))


@pytest.mark.parametrize("kind", [np.int64(0), np.float32(0)])
def test_argument_types_are_checked(small, kind):
    with pytest.raises(AssertionError, match="for int32"):
        small.launch("small", "meet", (1, 1, 1), 64, (kind, np.zeros(65, dtype=np.int32)))
    with pytest.raises(AssertionError, match="uint32"):
        small.launch("small", "meet", (1, 1, 1), 64, (np.int32(0), np.zeros(65, dtype=np.uint32)))

"""Every kernel compiles for every GPU it is meant for, and keeps its values in registers."""

from __future__ import annotations

import re

import pytest

from kernels.cuda.launchers import OPTIONS, SOURCES
from tests.kernels.cuda import nvrtc
from tests.kernels.cuda.emulator import kernels_of

# Registers a thread may use: 65536 / (threads of a block * blocks wanted on a multiprocessor at once).
MAX_REGISTERS = {
    "scan_tile": 64,
    "seed_row_thresholds": 48,
    "seed_column_thresholds": 48,
    "compact_lists": 80,
    "pair_dots": 40,
    "unit_rows": 40,
    "center_sums": 40,
    "injected_rows_float16": 80,
    "injected_rows_float32": 64,
    "count_pairs": 40,
    "place_pairs_uint8": 40,
    "place_pairs_uint16": 40,
    "place_pairs_uint32": 40,
}

# What CuPy 14.2 adds by itself.
OF_CUPY = ("-ftz=true", "--device-as-default-execution-space")
# Roundings of float32 that may turn subnormal numbers into zeros: only a residual, which is at least 2^-36.
MAY_FLUSH = {"pair_dots": set(), "injected_rows": set(), "pair_counts": set(), "unit_rows": {"cvt.rp.ftz.f32.f64"}}

needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="nvidia-cuda-nvrtc is not installed")


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.cu")), ids=lambda path: path.stem)
def test_no_kernel_spills(path, architecture):
    cubin, usage, log = nvrtc.compiled(path.read_text(), path.name, architecture, OPTIONS + OF_CUPY)
    assert cubin.startswith(b"\x7fELF")
    assert usage.keys() == kernels_of(path).keys()
    assert "warning" not in log
    for kernel, used in usage.items():
        assert used[:3] == (0, 0, 0), kernel
        assert used.registers <= MAX_REGISTERS[kernel], kernel


@needs_nvrtc
@pytest.mark.parametrize("name", MAY_FLUSH)
def test_kernels_with_defined_bits_keep_subnormal_numbers(name):
    ptx = nvrtc.assembly((SOURCES / f"{name}.cu").read_text(), name, OPTIONS + OF_CUPY)
    assert set(re.findall(r"[\w.]+\.ftz[\w.]*", ptx)) == MAY_FLUSH[name]


@needs_nvrtc
def test_scores_are_loaded_16_bytes_at_a_time():
    ptx = nvrtc.assembly((SOURCES / "threshold_scan.cu").read_text(), "threshold_scan", OPTIONS + OF_CUPY)
    scan = ptx.split(".entry scan_tile(")[1].split(".entry ")[0]
    assert scan.count("ld.global.nc.v4.f32") == 8


@needs_nvrtc
def test_local_memory_is_noticed():
    source = """extern "C" __global__ void slow(float* values, int n) {
        float kept[64];
        for (int i = 0; i < 64; ++i) kept[i] = values[i * 7 + n];
        for (int i = 0; i < n; ++i) kept[(i * n) & 63] += values[i];
        values[threadIdx.x] = kept[threadIdx.x & 63];
    }"""
    _, usage, _ = nvrtc.compiled(source, "slow.cu", "sm_90", OPTIONS)
    assert usage["slow"].stack == 256


@needs_nvrtc
def test_errors_are_noticed():
    with pytest.raises(SyntaxError, match="undefined"):
        nvrtc.compiled('extern "C" __global__ void wrong() { undefined(); }', "wrong.cu", "sm_90", OPTIONS)

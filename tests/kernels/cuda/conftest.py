"""Every case runs twice: the kernels compiled for the CPU by g++, and on a GPU through CuPy."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from kernels.cuda import launchers as cuda_kernels
from kernels.cuda import tile_loop as cuda_tile_loop
from tests.kernels.cuda.emulator import Emulator, compiler


def multiply(row_units, column_units, out, width, _workspace=None):
    """`multiply_fp16` without cuBLAS."""
    out[:] = (row_units.astype(np.float32) @ column_units.astype(np.float32).T) * np.float32(1 / width)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    if compiler is None:
        pytest.skip("g++ is not installed")
    return Emulator(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def xp(request, monkeypatch):
    """The array module: NumPy with emulated launches, or CuPy."""
    if request.param == "emulated":
        emulator = request.getfixturevalue("emulator")
        monkeypatch.setattr(cuda_kernels, "_launch", emulator.launch)
        monkeypatch.setattr(cuda_tile_loop, "multiply_fp16", multiply)
        # A graph repeats launches with the arguments they were recorded with; so does a second call.
        monkeypatch.setattr(cuda_tile_loop, "recorded_graph", lambda _, work: contextlib.nullcontext(work))
        return np
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        num_devices = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        pytest.skip(f"no usable GPU ({error})")
    if num_devices == 0:
        pytest.skip("no GPU is visible")
    return cupy

"""Every case runs twice: the kernels compiled for the CPU by g++, and on a GPU through CuPy."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cuda import device_rows
from kernels.cuda import launchers as cuda_kernels
from kernels.cuda import tile_loop as cuda_tile_loop
from tests.kernels.cuda.emulator import Emulator, PretendedCuPy, compiler


def multiply(row_units, column_units, out, width, _workspace=None):
    """`multiply_fp16` without cuBLAS."""
    out[:] = (row_units.astype(np.float32) @ column_units.astype(np.float32).T) * np.float32(1 / width)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    if compiler is None:
        pytest.skip("g++ is not installed")
    return Emulator(tmp_path_factory.mktemp("emulated"))


class Recorder:
    """Stands in for CUDA graphs: keeps calls with the arguments that they had while a graph was recorded."""

    def __init__(self):
        self.calls = None  # a list while a graph is recorded

    def recordable(self, function):
        def call(*arguments):
            if self.calls is None:
                function(*arguments)
            else:
                self.calls.append((function, arguments))

        return call

    def record(self, _, work):
        assert self.calls is None
        self.calls = []
        try:
            work()
            return Graph(self.calls)
        finally:
            self.calls = None


class Graph:
    def __init__(self, calls):
        self._calls = calls

    def launch(self):
        for function, arguments in self._calls:
            function(*arguments)


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def xp(request, monkeypatch):
    """The array module: NumPy with emulated launches, or CuPy."""
    if request.param == "emulated":
        emulator = request.getfixturevalue("emulator")
        recorder = Recorder()
        monkeypatch.setattr(cuda_kernels, "_launch", recorder.recordable(emulator.launch))
        monkeypatch.setattr(cuda_tile_loop, "multiply_fp16", recorder.recordable(multiply))
        monkeypatch.setattr(cuda_tile_loop, "recorded_graph", recorder.record)
        monkeypatch.setattr(device_rows, "_device", lambda _: 0)
        monkeypatch.setattr(device_rows, "_free_bytes", lambda _: 1 << 30)
        monkeypatch.setattr(np, "cuda", PretendedCuPy.cuda, raising=False)
        return np
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        num_devices = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        pytest.skip(f"no usable GPU ({error})")
    if num_devices == 0:
        pytest.skip("no GPU is visible")
    return cupy


@pytest.fixture
def device(xp):
    """The array module as the code outside of kernels.cuda sees it: not NumPy."""
    return PretendedCuPy() if xp is np else xp

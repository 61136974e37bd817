"""Measure the host's part of the cosine search on a GPU, on a machine without a GPU: the tile loop and the ranking.

    python -m benchmarks.tile_loop_host [--num-items 1000000] [--width 384]

The loop runs as it does for one task of a graph build, but CuPy is replaced by a stand-in whose launches do nothing. So
the CPU seconds are those of this project's Python, with slices of arrays that take about as long as CuPy's. What CuPy
and the driver need for a launch comes on top, so the calls are counted too. Two ways to queue the tiles are compared:

    one by one   each tile is queued by Python: a product, a scan, a compaction
    recorded     panels are launched as CUDA graphs (the default, `kernels/cuda/tile_loop.py`)

The exact ranking of candidates is measured with float64 products that cost nothing, in two ways:

    gathered     the rows of each part's candidates are gathered in host memory and would be sent to the GPU
    held         the rows are on the GPU (`kernels/cuda/device_rows.py`), so only indices and products are sent
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np

from contracts.text_table import text_table
from kernels.cosine.exact_ranking import rank_candidates
from kernels.cuda import gemm, launchers
from kernels.cuda.launchers import HALF_VECTOR
from kernels.cuda.tile_loop import BUFFER_BYTES, DeviceTileLoop, empty_lists, tile_shape

# Of an H200.
MULTIPROCESSORS = 132
NUM_NEIGHBORS = 10
CAPACITY = 96
# Rows that are ranked, and candidates of each: H and near-ties.
RANKED_ROWS, CANDIDATES = 100_000, NUM_NEIGHBORS + 2
# What the device would run, by the name of the call.
TILE = "scan_tile"


class Memory:
    """A place in the memory of a device that does not exist."""

    __slots__ = ("ptr",)

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class Array:
    """An array without values: only the shape, the strides, the type and the address, as launches need them."""

    __slots__ = ("data", "dtype", "nbytes", "shape", "strides")

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None, ptr: int = 0
    ) -> None:
        self.shape, self.dtype, self.data = shape, np.dtype(dtype), Memory(ptr)
        if strides is None:
            strides = tuple(int(np.prod(shape[k + 1 :])) * self.dtype.itemsize for k in range(len(shape)))
        self.strides = strides
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: Any) -> Array:
        parts = index if isinstance(index, tuple) else (index,)
        if isinstance(parts[0], int):
            return Array(self.shape[1:], self.dtype, self.strides[1:], self.data.ptr + parts[0] * self.strides[0])
        shape, ptr = list(self.shape), self.data.ptr
        for axis, part in enumerate(parts):
            start, stop, _ = part.indices(shape[axis])
            shape[axis] = stop - start
            ptr += start * self.strides[axis]
        return Array(tuple(shape), self.dtype, self.strides, ptr)


class Calls:
    """Counts the calls that Python makes, and what the device would run because of them."""

    def __init__(self) -> None:
        self.from_python: Counter[str] = Counter()
        self.on_device: Counter[str] = Counter()
        self.recording: Counter[str] | None = None

    def make(self, name: str) -> Any:
        def call(*_: Any) -> None:
            self.from_python[name] += 1
            (self.on_device if self.recording is None else self.recording)[name] += 1

        return call


class Graph:
    def __init__(self, calls: Calls, content: Counter[str]) -> None:
        self._calls, self._content = calls, content

    def launch(self) -> None:
        self._calls.from_python["launch of a graph"] += 1
        self._calls.on_device.update(self._content)


class Stream:
    ptr = 0

    def __init__(self, calls: Calls, **_: bool) -> None:
        self._calls = calls

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin_capture(self) -> None:
        self._calls.recording = Counter()

    def end_capture(self) -> Graph:
        recorded = self._calls.recording
        assert recorded is not None
        self._calls.recording = None
        return Graph(self._calls, recorded)

    def synchronize(self) -> None:
        pass


class Module(ModuleType):
    """The part of CuPy that the tile loop uses."""

    def __init__(self, calls: Calls) -> None:
        super().__init__("cupy")
        stream = Stream(calls)
        constants = dict.fromkeys(
            ("CUBLAS_OP_T", "CUBLAS_OP_N", "CUBLAS_COMPUTE_32F", "CUBLAS_GEMM_DEFAULT", "CUDA_R_16F", "CUDA_R_32F"), 0
        )
        product = calls.make("product")
        self.cuda: Any = ModuleType("cupy.cuda")
        self.cuda.__dict__.update(
            Device=lambda: SimpleNamespace(id=0),
            Stream=lambda **options: Stream(calls, **options),
            get_current_stream=lambda: stream,
            cublas=SimpleNamespace(gemmEx=product, **constants),
            device=SimpleNamespace(get_cublas_handle=lambda: 0),
            runtime=SimpleNamespace(**constants),
        )
        self.copyto = calls.make("copy")
        kernels = {}

        def function_of(name: str) -> Any:
            counted = kernels.setdefault(name, calls.make(name))
            return lambda _grid, _block, _arguments: counted()

        self.RawModule = lambda **_: SimpleNamespace(get_function=function_of)
        gemm._cublas_functions = lambda: (_nothing, _nothing, product)  # type: ignore[assignment]

    @staticmethod
    def empty(shape: Any, dtype: Any) -> Array:
        return Array(shape if isinstance(shape, tuple) else (shape,), dtype)

    zeros = empty

    def full(self, shape: int, _: float, dtype: Any) -> Array:
        return self.empty(shape, dtype)

    @staticmethod
    def empty_like(array: Array) -> Array:
        return Array(array.shape, array.dtype)

    @staticmethod
    def asarray(values: Any, dtype: Any) -> Array:
        return Array(np.shape(values), dtype)


def _nothing(*_: Any) -> None:
    pass


def measure(num_items: int, width: int, graph: bool) -> dict[str, Any]:
    """Queue the triangle of all pairs of `num_items` rows, and count and time what Python does."""
    calls = Calls()
    cupy = Module(calls)
    sys.modules["cupy"], sys.modules["cupy.cuda"] = cupy, cupy.cuda
    launchers._kernel.cache_clear()
    launchers._module_of_source.cache_clear()
    tile = tile_shape(BUFFER_BYTES, MULTIPROCESSORS)
    loop = DeviceTileLoop(xp=cupy, width=width, num_neighbors=NUM_NEIGHBORS, tile=tile, graph=graph)
    lists = empty_lists(cupy, Array((num_items,), np.float32), CAPACITY)
    units = Array((num_items, -(-width // HALF_VECTOR) * HALF_VECTOR), np.float16)
    start = time.process_time()
    loop.triangle(units, lists, 0)
    seconds = time.process_time() - start
    tiles = calls.on_device[TILE]
    return {
        "tiles": tiles,
        "tiles_queued_by_python": calls.from_python[TILE],
        "calls": dict(calls.from_python),
        "calls_per_tile": calls.from_python.total() / tiles,
        "seconds": seconds,
        "microseconds_per_tile": seconds / tiles * 1e6,
        "microseconds_per_call": seconds / calls.from_python.total() * 1e6,
    }


def measure_ranking(width: int, held: bool) -> dict[str, float]:
    """Rank the candidates of some rows, with products that cost nothing. Return seconds and bytes for 1M rows."""
    random = np.random.default_rng(0)
    features = random.standard_normal((RANKED_ROWS, width), dtype=np.float32)
    squares = np.ones(RANKED_ROWS)
    offsets = np.arange(RANKED_ROWS + 1) * CANDIDATES
    candidates = random.integers(0, RANKED_ROWS, RANKED_ROWS * CANDIDATES)
    products = random.random(RANKED_ROWS * CANDIDATES)
    sent = 0

    def dots(left: np.ndarray, left_index: np.ndarray, right: np.ndarray, right_index: np.ndarray) -> np.ndarray:
        nonlocal sent
        sent += left_index.nbytes + right_index.nbytes + 8 * len(left_index)
        if not held:
            for matrix, index in ((left, left_index), (right, right_index)):
                sent += np.ascontiguousarray(matrix[np.unique(index, return_inverse=True)[0]]).nbytes
        return products[: len(left_index)]

    def rank(num_rows: int) -> float:
        start = time.process_time()
        part = offsets[: num_rows + 1]
        rank_candidates(features, squares, np.arange(num_rows), part, candidates, NUM_NEIGHBORS, 1, dots)
        return time.process_time() - start

    rank(1)  # compiles
    sent = 0
    scale = 1_000_000 / RANKED_ROWS
    return {"seconds": rank(RANKED_ROWS) * scale, "gib": sent * scale / 2**30}


@click.command()
@click.option("--num-items", default=1_000_000, show_default=True, type=click.IntRange(min=1))
@click.option("--width", default=384, show_default=True, type=click.IntRange(min=1))
def main(num_items: int, width: int) -> None:
    """Measure on this machine; JSON on the last line."""
    names = {"one by one": False, "recorded": True}
    found = {name: measure(num_items, width, graph) for name, graph in names.items()}
    rows = [
        [
            name,
            f"{one['tiles']:,}",
            f"{one['tiles_queued_by_python']:,}",
            f"{one['calls_per_tile']:.3f}",
            f"{one['seconds']:.2f}",
            f"{one['microseconds_per_tile']:.2f}",
        ]
        for name, one in found.items()
    ]
    headers = ["", "tiles", "queued or recorded by Python", "calls per tile", "seconds", "microseconds per tile"]
    click.echo(text_table(rows, headers, right=range(1, 6)))
    ranking = {name: measure_ranking(width, name == "held") for name in ("gathered", "held")}
    lines = [[name, f"{one['seconds']:.2f}", f"{one['gib']:.2f}"] for name, one in ranking.items()]
    headers = ["ranking of 1M rows", "seconds of the host", "GiB sent"]
    click.echo("\n" + text_table(lines, headers, right=(1, 2)))
    click.echo(json.dumps({"tiles": found, "ranking": ranking}))


if __name__ == "__main__":
    main()

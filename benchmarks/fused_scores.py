"""What the inner loop of fused_scores.cu needs of a multiprocessor, and, where there is a GPU, how long it takes.

    python -m benchmarks.fused_scores

1. Registers, spilled bytes and shared memory as NVRTC's assembler reports them, and the occupancy that follows. This
   needs the wheel nvidia-cuda-nvrtc, but no GPU.
2. On a GPU: the triangle of 131,072 rows of width 384 with thresholds that no score reaches, beside cuBLAS's float16
   product of all pairs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.graphs_gpu import full_gemm_seconds, seconds_of
from contracts.errors import InputError
from contracts.text_table import text_table
from kernels.backend import array_module
from tests.kernels.cuda import nvrtc

SOURCE = Path(__file__).with_suffix(".cu")
ROWS, COLUMNS, THREADS = 128, 256, 256
NUM_ROWS, WIDTH, CAPACITY = 1 << 17, 384, 96


class Multiprocessor(NamedTuple):
    """Limits of one multiprocessor (CUDA C++ Programming Guide, compute capabilities)."""

    registers: int
    shared_bytes: int
    warps: int


LIMITS = {
    "sm_80": Multiprocessor(1 << 16, 164 << 10, 64),
    "sm_90": Multiprocessor(1 << 16, 228 << 10, 64),
    "sm_100": Multiprocessor(1 << 16, 228 << 10, 64),
}
# Shared memory that CUDA itself uses of each block, and the unit in which a warp gets registers.
_RESERVED_BYTES, _REGISTER_UNIT = 1 << 10, 256


def needs(architecture: str) -> dict[str, Any]:
    """Return the registers, memory and occupancy of the kernel on an architecture."""
    source = SOURCE.read_text()
    _, usage, _ = nvrtc.compiled(source, SOURCE.name, architecture, ("--std=c++17", "-ftz=true"))
    used, limits = usage["fused_scores"], LIMITS[architecture]
    warps = THREADS // 32
    of_a_warp = -(-used.registers * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = limits.registers // (of_a_warp * warps)
    by_memory = limits.shared_bytes // (shared_bytes() + _RESERVED_BYTES)
    blocks = min(by_registers, by_memory, limits.warps // warps)
    return {
        "registers": used.registers,
        "spilled_bytes": used.spill_stores + used.spill_loads,
        "shared_bytes": shared_bytes(),
        "blocks": blocks,
        "warps": blocks * warps,
        "occupancy": blocks * warps / limits.warps,
    }


def shared_bytes() -> int:
    found = re.search(r"SHARED_BYTES = (\d+);", SOURCE.read_text())
    assert found is not None
    return int(found[1])


def measure(cupy: Any) -> dict[str, float]:
    """Return the seconds of the triangle, and of cuBLAS's product of all pairs of the same rows."""
    units = cupy.random.default_rng(0).standard_normal((NUM_ROWS, WIDTH), dtype=cupy.float32).astype(cupy.float16)
    places = [(r, c) for r in range(0, NUM_ROWS, ROWS) for c in range(r // COLUMNS * COLUMNS, NUM_ROWS, COLUMNS)]
    tiles = cupy.asarray(places, dtype=np.int32)
    threshold = cupy.full(NUM_ROWS, np.inf, dtype=np.float32)
    lists = (
        cupy.zeros(NUM_ROWS, dtype=np.int32),
        cupy.empty((NUM_ROWS, CAPACITY), dtype=np.int32),
        cupy.empty((NUM_ROWS, CAPACITY), dtype=np.float32),
    )
    repeat = cupy.zeros(len(places), dtype=np.uint8)
    kernel = cupy.RawModule(code=SOURCE.read_text(), options=("--std=c++17",)).get_function("fused_scores")
    kernel.max_dynamic_shared_size_bytes = shared_bytes()
    sizes = np.int32(NUM_ROWS), np.int32(WIDTH)
    arguments = (units, *sizes, tiles, np.int32(len(places)), threshold, *lists, np.int32(CAPACITY), repeat)
    blocks = cupy.cuda.Device().attributes["MultiProcessorCount"]
    seconds = seconds_of(cupy, lambda: kernel((blocks,), (THREADS,), arguments, shared_mem=shared_bytes()), repeats=3)
    gemm = full_gemm_seconds(cupy, units, WIDTH)
    assert not bool(lists[0].any())
    return {"triangle_seconds": seconds, "full_gemm_seconds": gemm, "triangle_over_gemm": seconds / gemm}


@click.command()
def main() -> None:
    """Print a table of what the kernel needs; JSON on the last line."""
    result: dict[str, Any] = {}
    if nvrtc.library() is None:
        click.echo("nvidia-cuda-nvrtc is not installed: nothing was compiled")
    else:
        result["needs"] = {architecture: needs(architecture) for architecture in LIMITS}
        rows = [[name, *map(str, facts.values())] for name, facts in result["needs"].items()]
        headers = ["", *next(iter(result["needs"].values()))]
        click.echo(text_table(rows, headers, right=range(1, len(headers))))
    try:
        result["measured"] = measure(array_module("cuda"))
    except InputError as error:
        click.echo(f"nothing was measured: {error}")
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()

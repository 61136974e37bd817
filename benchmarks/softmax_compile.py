"""Compile the softmax kernels for GPUs, without a GPU, and print what each program takes of a multiprocessor.

    python -m benchmarks.softmax_compile [--widths 64,300] [--precisions tf32,bf16] [--architectures 80,90]

It needs the wheel of Triton alone, which holds the assembler. Each kernel is compiled with marks and gains, the form
that takes the most. A line for each: registers of a thread, bytes of its stack (values that did not fit in registers),
shared memory, and how many programs fit on a multiprocessor at once, by these and by the number of its threads.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kernels.softmax.sampled_softmax import BLOCK_ENTRIES, BLOCK_TARGETS
from kernels.softmax.tiles import Tiles, power_of_two, tiles_of

# Of a multiprocessor: shared memory, and what of it one program may have. CUDA C++ Programming Guide, compute
# capabilities: 8.0 is A100, 8.6 is A10 and RTX 3090, 9.0 is H100 and H200. A program costs 1 KiB more than it asks for.
SHARED = {80: (164 * 1024, 163 * 1024), 86: (100 * 1024, 99 * 1024), 90: (228 * 1024, 227 * 1024)}
KERNELS = ("mark_pairs", "sum_over_columns", "add_targets", "sum_over_rows")
REGISTERS, THREADS = 65536, {80: 2048, 86: 1536, 90: 2048}
VECTORS, INTEGERS = ("users", "columns", "targets"), ("own", "marks")
DTYPES = {"tf32": "fp32", "ieee": "fp32", "bf16": "bf16"}
COUNTS = (
    "num_rows", "num_columns", "row_words", "split_columns", "split_rows", "num_splits", "num_entries", "row_entries",
)  # fmt: skip


def constants_of(kernel: str, width: int, precision: str, tiles: Tiles) -> dict[str, Any]:
    """Return the values that a kernel is compiled for."""
    if kernel == "mark_pairs":
        return {"BIT": 2, "BLOCK": BLOCK_ENTRIES}
    if kernel == "add_targets":
        return {"WIDTH": width, "SIZE": power_of_two(width), "GAINED": True, "BLOCK_ROWS": BLOCK_TARGETS}
    by_columns = kernel == "sum_over_columns"
    return {
        "WIDTH": width, "HEAD": tiles.head, "TAIL": tiles.tail, "MARKED": True, "GAINED": True,
        "PRECISION": "ieee" if precision == "ieee" else "tf32",
        "BLOCK_ROWS": tiles.kept if by_columns else tiles.passed,
        "BLOCK_COLUMNS": tiles.passed if by_columns else tiles.kept,
    }  # fmt: skip


def compiled(kernel: str, width: int, precision: str, architecture: int, tiles: Tiles) -> Any:
    """Return a kernel as Triton compiles it for an architecture, such as 90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels.softmax import triton_kernels

    function = getattr(triton_kernels, kernel)
    constants = constants_of(kernel, width, precision, tiles)
    types, multiples = {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            types[name] = "constexpr"
        elif name in COUNTS:
            types[name] = "i32"
        else:
            is_integer = name in INTEGERS or kernel == "mark_pairs"
            types[name] = "*i32" if is_integer else "*" + (DTYPES[precision] if name in VECTORS else "fp32")
            multiples[(place,)] = [["tt.divisibility", 16]]  # torch's memory begins at multiples of 512 bytes
    source = ASTSource(function, types, constants, multiples)
    is_loop = kernel.startswith("sum_over")
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages} if is_loop else {}
    return triton.compile(source, GPUTarget("cuda", architecture, 32), options)


def registers_and_stack(binary: bytes) -> tuple[int, int]:
    """Return registers and bytes of stack of each thread, as the tool of Triton's wheel reads them from a binary."""
    import triton

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary)
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return int(found[1]), int(found[2])


def report(kernel: str, width: int, precision: str, architecture: int, tiles: Tiles) -> dict[str, Any]:
    """Return what a program takes, and how many fit on a multiprocessor."""
    made = compiled(kernel, width, precision, architecture, tiles)
    registers, stack = registers_and_stack(made.asm["cubin"])
    threads, shared = 32 * made.metadata.num_warps, made.metadata.shared
    of_all, of_one = SHARED[architecture]
    fit = min(
        REGISTERS // (threads * -(-registers // 8) * 8), of_all // (shared + 1024), THREADS[architecture] // threads
    )
    assembly = made.asm["ptx"]
    return {
        "kernel": kernel, "width": width, "precision": precision, "architecture": architecture, "threads": threads,
        "registers": registers, "stack": stack, "shared": shared, "programs": fit if shared <= of_one else 0,
        "tensor_cores": "wgmma" if "wgmma.mma_async" in assembly else "mma" if "mma.sync" in assembly else "none",
    }  # fmt: skip


@click.command(help=__doc__)
@click.option("--widths", default="64,300", help="Widths of the vectors.")
@click.option("--precisions", default="tf32,bf16", help="Of tf32, bf16 and ieee (float32 without tensor cores).")
@click.option("--architectures", default="80,90", help="Compute capabilities, such as 90 for 9.0.")
@click.option("--kernels", default=",".join(KERNELS), help="Names of the kernels.")
@click.option("--tiles", "given", help="kept,passed,warps,stages instead of the chosen ones.")
def main(widths: str, precisions: str, architectures: str, kernels: str, given: str | None) -> None:
    os.environ.pop("TRITON_INTERPRET", None)
    for width in map(int, widths.split(",")):
        for precision in precisions.split(","):
            for architecture in map(int, architectures.split(",")):
                tiles = tiles_of(width, SHARED[architecture][0])
                if tiles is None:
                    raise click.BadParameter(f"a width of {width} has no tiles")
                if given:
                    kept, passed, warps, stages = map(int, given.split(","))
                    tiles = replace(tiles, kept=kept, passed=passed, warps=warps, stages=stages)
                for kernel in kernels.split(","):
                    click.echo(json.dumps(report(kernel, width, precision, architecture, tiles)))


if __name__ == "__main__":
    main()

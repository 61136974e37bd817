"""Sizes of the tiles of the fused softmax, and how its work is split into programs.

A program keeps a tile of rows (or of columns, in the backward) and the sum that belongs to it in registers and shared
memory while it passes over the other side. `benchmarks/softmax_compile.py` prints what each choice takes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

# Wider vectors have no tiles.
MAX_WIDTH = 512
# So many programs are wanted at once on a multiprocessor, so that one computes while another waits for memory.
PROGRAMS_OF_A_MULTIPROCESSOR = 2


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Sizes that a kernel is compiled for.

    Attributes:
        head: size of the first part of a vector, a power of two.
        tail: size of the second part, a power of two; 0: there is none.
        kept: rows (or columns) that a program keeps.
        passed: columns (or rows) of each step of its loop.
        warps: warps of a program.
        stages: steps of the loop whose loads are under way at the same time.
    """

    head: int
    tail: int
    kept: int
    passed: int
    warps: int
    stages: int


def parts_of(width: int) -> tuple[int, int]:
    """Return sizes of head and tail for vectors of a width: powers of two, at least 16, whose sum is the least."""
    whole = max(16, power_of_two(width))
    head = whole // 2
    tail = max(16, power_of_two(width - head)) if width > head else 16
    return (head, tail) if whole > 16 and tail < head else (whole, 0)


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below a positive number."""
    return 1 << (number - 1).bit_length()


def tiles_of(width: int, *, itemsize: int) -> Tiles:
    """Return the tiles for vectors of a width and of `itemsize` bytes a component."""
    head, tail = parts_of(width)
    padded = head + tail
    if padded <= 128:
        return Tiles(head=head, tail=tail, kept=64, passed=64, warps=4, stages=2)
    return Tiles(head=head, tail=tail, kept=64, passed=32, warps=8, stages=2)


def split_size(num_kept: int, num_passed: int, tiles: Tiles, device: torch.device) -> tuple[int, int]:
    """Return how the pass of each program is split, so that every multiprocessor has work: a size, and their number.

    Args:
        num_kept: number of vectors that programs keep, a tile each.
        num_passed: number of vectors that they pass over. The size is a multiple of a step of the loop.
        tiles: sizes of tiles.
        device: the GPU. On CPU, where Triton's interpreter runs the kernels for tests, there are two splits.
    """
    wanted = 2
    if device.type == "cuda":
        wanted = -(-PROGRAMS_OF_A_MULTIPROCESSOR * _multiprocessors(device) * tiles.kept // max(1, num_kept))
    steps = max(1, -(-num_passed // tiles.passed))
    size = -(-steps // min(wanted, steps)) * tiles.passed
    return size, max(1, -(-num_passed // size))


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)

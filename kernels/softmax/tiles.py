"""Sizes of the tiles of the softmax kernels, and how their work is split into programs.

A program keeps a tile of rows (of columns, in the backward) and the sum that belongs to it, in registers and shared
memory, while it passes over the other side. The sizes below are the largest of those tried that leave no value of a
thread in memory instead of registers, in TF32 with marks and gains: `python -m benchmarks.softmax_compile` prints it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

KIB = 1024
# With about 255 registers a thread, so many warps run on a multiprocessor at a time.
WARPS_OF_A_MULTIPROCESSOR = 8


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


def tiles_of(width: int, shared_bytes: int) -> Tiles | None:
    """Return the tiles for vectors of a width; None if they are too wide, from 321 on.

    Args:
        width: d, at least 1.
        shared_bytes: shared memory of a multiprocessor: 228 KiB on H100 and H200, 164 on A100, 100 on smaller GPUs.
    """
    head, tail = parts_of(width)
    if head + tail <= 128:
        return Tiles(head=head, tail=tail, kept=64, passed=32, warps=4, stages=2)
    if head + tail <= 320:
        kept, warps = (64, 8) if shared_bytes >= 228 * KIB else (32, 8) if shared_bytes >= 164 * KIB else (16, 4)
        return Tiles(head=head, tail=tail, kept=kept, passed=32, warps=warps, stages=2)
    return None


def tiles_on(device: torch.device, width: int) -> Tiles | None:
    """Return `tiles_of` for a device. On CPU, where Triton's interpreter runs the kernels, they are an H200's."""
    return tiles_of(width, _multiprocessor(device).shared_bytes)


def parts_of(width: int) -> tuple[int, int]:
    """Return sizes of head and tail for vectors of a width: powers of two, at least 16, whose sum is the least."""
    whole = max(16, power_of_two(width))
    head = whole // 2
    tail = max(16, power_of_two(width - head)) if width > head else 0
    return (head, tail) if 0 < tail < head else (whole, 0)


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below a positive number."""
    return 1 << (number - 1).bit_length()


def split_size(num_kept: int, num_passed: int, tiles: Tiles, device: torch.device) -> tuple[int, int]:
    """Return how the pass of each program is split, so that every multiprocessor has work: a size, and their number.

    Args:
        num_kept: number of vectors that programs keep, a tile each.
        num_passed: number of vectors that they pass over. The size is a multiple of a step of the loop.
        tiles: sizes of tiles.
        device: the GPU. On CPU, for tests, there are two splits if there are two steps.
    """
    wanted = 2
    if device.type == "cuda":
        slots = _multiprocessor(device).count * WARPS_OF_A_MULTIPROCESSOR // tiles.warps
        wanted = fewest_rounds(max(1, -(-num_kept // tiles.kept)), slots)
    steps = max(1, -(-num_passed // tiles.passed))
    size = -(-steps // min(wanted, steps)) * tiles.passed
    return size, max(1, -(-num_passed // size))


@functools.cache
def fewest_rounds(num_tiles: int, slots: int) -> int:
    """Return the number of splits for which the programs end first, if `slots` of them run at a time.

    With s splits there are s * num_tiles programs, which take 1/s of the time each. More than 4 splits are for few
    tiles only, because each split writes partial sums.
    """
    splits = range(1, max(4, slots // num_tiles) + 1)
    return min(splits, key=lambda s: -(-s * num_tiles // slots) / s)


@dataclass(frozen=True, kw_only=True)
class _Multiprocessor:
    """The number of multiprocessors, and the shared memory of one."""

    count: int
    shared_bytes: int


@functools.cache
def _multiprocessor(device: torch.device) -> _Multiprocessor:
    if device.type != "cuda":
        return _Multiprocessor(count=1, shared_bytes=228 * KIB)
    found = torch.cuda.get_device_properties(device)
    return _Multiprocessor(count=found.multi_processor_count, shared_bytes=found.shared_memory_per_multiprocessor)

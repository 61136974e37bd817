"""Runs a function over the blocks of a stage, in this process or through Ray (`ray_tasks.RayExecutor`).

A stage is a picklable function of one block. Its other arguments are bound with `functools.partial`. They are paths
and options, and never a matrix of N rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from contracts.terminal import shows_bars
from graph_builder.progress import counted
from kernels.backend import Backend, array_module
from kernels.cuda.device_rows import release_rows

Block = TypeVar("Block")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a function over blocks.

    Attributes:
        seconds: wall time of the labelled stages so far.
        gpus: number of GPUs for blocks whose function can use one; 0: all blocks run on cores.
    """

    seconds: dict[str, float]
    gpus: int

    def run_blocks(
        self,
        function: Callable[[Block], Result],
        blocks: Sequence[Block],
        *,
        label: str | None = None,
        on_gpu: bool = False,
    ) -> Iterator[Result]:
        """Yield the results in the order of `blocks`.

        Args:
            function: called with each block.
            blocks: the blocks of the stage.
            label: name of the stage, for a progress bar or lines (`progress.reporting`); None: shows neither.
            on_gpu: whether the function can use a GPU.

        Raises:
            Exception: the function raised it. The remaining blocks are not run.
        """
        ...

    def release(self) -> None:
        """Free the GPUs, or their memory, that are kept from stage to stage. The executor can still be used."""
        ...


class SerialExecutor:
    """Runs the blocks in this process, one after another. It needs no Ray.

    Attributes:
        seconds: see `Executor`.
        gpus: 1 if the kernels use a GPU, else 0.
        cores: 1.
    """

    cores = 1

    def __init__(self, backend: Backend = "cpu") -> None:
        """Prepare.

        Args:
            backend: `backend` of the graph's options. With "auto" and "cuda", blocks use CUDA's first visible GPU.

        Raises:
            InputError: `backend` is "cuda", and CuPy or a GPU is missing.
        """
        self.seconds: dict[str, float] = {}
        self.gpus = 0 if array_module(backend) is np else 1

    def run_blocks(
        self,
        function: Callable[[Block], Result],
        blocks: Sequence[Block],
        *,
        label: str | None = None,
        on_gpu: bool = False,  # noqa: ARG002 (there is one process for all)
    ) -> Iterator[Result]:
        yield from with_progress(map(function, blocks), len(blocks), label, self.seconds)

    def release(self) -> None:
        """See `Executor`."""
        release_rows()


def with_progress(
    results: Iterable[Result], total: int, label: str | None, seconds: dict[str, float]
) -> Iterator[Result]:
    """Yield the results of a stage, show their progress, and add the time that they took to `seconds`.

    A terminal shows a progress bar. Otherwise the results are counted for the lines of `progress`.
    """
    if label is None or not total:
        yield from results
        return
    start = time.perf_counter()
    bar = tqdm(results, total=total, desc=label, unit="block", disable=not shows_bars(), dynamic_ncols=True)
    yield from counted(bar, label, total)
    seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - start

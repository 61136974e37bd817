"""Who runs a stage's blocks: this process, or Ray (`ray_tasks.RayExecutor`), with the same functions.

A stage is a picklable function of one block. What a function needs besides its block (paths and
options, never a matrix of N rows) is bound to it with `functools.partial`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from tqdm import tqdm

from contracts.terminal import shows_bars
from graph_builder.progress import counted

Block = TypeVar("Block")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a function over blocks.

    Attributes:
        seconds: wall time of the labelled stages so far.
    """

    seconds: dict[str, float]

    @property
    def uses_gpu(self) -> bool:
        """Whether blocks that may run on a GPU are given one."""
        ...

    def run_blocks(
        self,
        function: Callable[[Block], Result],
        blocks: Sequence[Block],
        *,
        label: str | None = None,
        on_gpu: bool = False,
    ) -> Iterator[Result]:
        """Yields the results in the order of `blocks`.

        Args:
            label: name of the stage, on a progress bar or in lines (`progress.reporting`); null: neither.
            on_gpu: the function uses a GPU where it may.

        An exception of the function is raised here (an InputError as it is), and the other blocks are
        abandoned.
        """
        ...


class SerialExecutor:
    """One block after the other, in this process."""

    uses_gpu = False

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run_blocks(
        self,
        function: Callable[[Block], Result],
        blocks: Sequence[Block],
        *,
        label: str | None = None,
        on_gpu: bool = False,  # noqa: ARG002 (one process: the kernels find the GPU themselves)
    ) -> Iterator[Result]:
        yield from with_progress(map(function, blocks), len(blocks), label, self.seconds)


def with_progress(
    results: Iterable[Result], total: int, label: str | None, seconds: dict[str, float]
) -> Iterator[Result]:
    """The results of a labelled stage: on a progress bar where there is a terminal, counted for a line (`progress`)
    where there is none, and timed."""
    if label is None or not total:
        yield from results
        return
    start = time.perf_counter()
    bar = tqdm(results, total=total, desc=label, unit="block", disable=not shows_bars(), dynamic_ncols=True)
    yield from counted(bar, label, total)
    seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - start

"""Runs the tasks of a stage in this process, one after another; `ray_stages` runs them on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from contracts.terminal import shows_bars


class SerialExecutor:
    """Runs the tasks in this process."""

    def run(self, function: Callable[[int], None], tasks: Sequence[int], label: str) -> None:
        """See `work.Executor`."""
        for task in tqdm(tasks, desc=label, unit="part", disable=not shows_bars(), leave=False, dynamic_ncols=True):
            function(task)


@contextmanager
def in_this_process(num_bytes: int) -> Iterator[SerialExecutor]:
    """Yield a `SerialExecutor`, however large the input is."""
    del num_bytes
    yield SerialExecutor()

"""Measure the time of each part of a training step by marks on the calls that the step makes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from contracts.batch import Step
from distributed.sharding import ShardedSystem


class Clock:
    """Adds up the time between marks. On CUDA it uses events, which measure the device without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def restart(self) -> None:
        self._marks.clear()
        self.mark("")

    def mark(self, part: str) -> None:
        """Count the time since the last mark as time of `part`."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part since the restart."""
        if self._cuda:
            torch.cuda.synchronize()
        total: dict[str, float] = defaultdict(float)
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            total[part] += before.elapsed_time(after) / 1000 if self._cuda else after - before
        return dict(total)


def timed_loader(loader: Iterable[Step], clock: Clock) -> Iterator[Step]:
    """Yield the loader's steps. The time that the loader takes is "loader", and the time before it is "copy"."""
    ready = iter(loader)
    while True:
        clock.mark("copy")
        step = next(ready, None)
        clock.mark("loader")
        if step is None:
            return
        yield step


def time_calls(sharded: ShardedSystem, clock: Clock) -> None:
    """Mark the beginning and the end of the calls in a step. A part's time includes its waits for other ranks.

    The parts of the forward are "copy" until the lookup, "lookup", "views" until the towers, "towers", and "loss"
    after them.
    """
    system, parallel, optimizer = sharded.system, sharded.parallel, sharded.optimizer
    calls = [
        (parallel, "forward", "copy", "loss"),
        (system.table, "forward", "copy", "lookup"),
        (system.recommender, "user_vectors", "views", "towers"),
        (optimizer, "step", "backward", "optimiser"),
    ]
    for owner, name, before, part in calls:
        setattr(owner, name, _marked(getattr(owner, name), clock, before, part))


def _marked(function: Callable[..., Any], clock: Clock, before: str, part: str) -> Callable[..., Any]:
    def marked(*arguments: Any, **options: Any) -> Any:
        clock.mark(before)
        result = function(*arguments, **options)
        clock.mark(part)
        return result

    return marked

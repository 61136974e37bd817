"""Prints the progress of a graph build, one line per half minute, where there is no terminal for a progress bar.

A separate thread prints the lines, because a single block may take longer than half a minute.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from contracts.terminal import shows_bars

INTERVAL_SECONDS = 30.0

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """The current stage of a build, with its number of blocks (None: unknown), those done, and when it began."""

    name: str
    total: int | None
    is_bound: bool
    began: float
    done: int = 0


class StageReport:
    """The current stage and its progress. One thread updates it, and another reads it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = _Stage(name="beginning", total=None, is_bound=False, began=clock())

    def begin(self, name: str, total: int | None = None, *, is_bound: bool = False) -> None:
        """Begin a stage.

        Args:
            name: the name of the stage, as lines show it.
            total: number of its blocks; None: unknown.
            is_bound: whether `total` is an upper bound instead of the exact number.
        """
        self._stage = _Stage(name=name, total=total, is_bound=is_bound, began=self._clock())

    def advance(self) -> None:
        """Count a block that is done."""
        stage = self._stage
        self._stage = _Stage(
            name=stage.name, total=stage.total, is_bound=stage.is_bound, began=stage.began, done=stage.done + 1
        )

    def line(self) -> str:
        """Return a line with the stage, its blocks done, its time so far and, if known, its rate and time left."""
        stage = self._stage  # one read: the other thread may replace it meanwhile
        elapsed = self._clock() - stage.began
        if stage.total is None:
            return f"graph: {stage.name}, for {_duration(elapsed)}"
        most = "at most " if stage.is_bound else ""
        said = f"graph: {stage.name}, {stage.done:,} of {most}{stage.total:,} blocks in {_duration(elapsed)}"
        if not stage.done or elapsed <= 0:
            return said
        left = elapsed * (stage.total - stage.done) / stage.done
        return f"{said}, {60 * stage.done / elapsed:,.3g} blocks a minute, {most or 'about '}{_duration(left)} left"


_current: ContextVar[StageReport | None] = ContextVar("report", default=None)


@contextmanager
def reporting(
    report: StageReport | None = None,
    is_terminal: bool | None = None,
    say: Callable[[str], None] | None = None,
    wait: Callable[[float], bool] | None = None,
) -> Iterator[StageReport]:
    """Within this context, `begin` and `counted` update the report, which is printed every INTERVAL_SECONDS.

    Args:
        report: the report to update; None: a new one.
        is_terminal: whether progress bars are shown, so that no lines are needed; None: `shows_bars()`.
        say: prints a line; None: prints it to standard error.
        wait: waits for a number of seconds and returns whether the build has ended; None: waits for real.
    """
    report = report or StageReport()
    ended = threading.Event()
    arguments = (report, say or _print, wait or ended.wait)
    quiet = shows_bars() if is_terminal is None else is_terminal
    thread = None if quiet else threading.Thread(target=_say_lines, args=arguments, name="progress", daemon=True)
    token = _current.set(report)
    if thread:
        thread.start()
    try:
        yield report
    finally:
        _current.reset(token)
        ended.set()
        if thread:
            thread.join()


def begin(name: str, total: int | None = None, *, is_bound: bool = False) -> None:
    """Call `StageReport.begin` for the current build, if there is one."""
    if (report := _current.get()) is not None:
        report.begin(name, total, is_bound=is_bound)


def advance() -> None:
    """Call `StageReport.advance` for the current build, if there is one."""
    if (report := _current.get()) is not None:
        report.advance()


def counted(results: Iterable[Result], name: str, total: int) -> Iterator[Result]:
    """Yield the results of a stage's blocks, and count each of them."""
    begin(name, total)
    for result in results:
        advance()
        yield result


def _say_lines(report: StageReport, say: Callable[[str], None], wait: Callable[[float], bool]) -> None:
    while not wait(INTERVAL_SECONDS):
        say(report.line())


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

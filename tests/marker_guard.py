"""Fail a test that starts Ray or spawns processes but lacks the marker for it.

The markers decide which tests `make check` runs and which tests run in parallel, so a forgotten marker is an error of
the test. The guard sees what a test does in its own process: starting Ray or `ray start`, and Python's
`multiprocessing`. It does not see what a command does that the test starts as a separate process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

# The program that every start of Ray runs, and the module behind `ray start`.
_RAY_PROGRAMS = {"gcs_server", "ray.scripts.scripts"}
_current: list[pytest.Item] = []
_popen, _start = subprocess.Popen.__init__, BaseProcess.start


def watch() -> None:
    """Check, from now on, every process that a test starts."""
    subprocess.Popen.__init__ = _checked_popen  # type: ignore[method-assign]
    BaseProcess.start = _checked_start  # type: ignore[method-assign]


@contextmanager
def running(item: pytest.Item) -> Iterator[None]:
    """Attribute all processes that start within the block to this test."""
    _current.append(item)
    try:
        yield
    finally:
        _current.pop()


def mark_by_what_it_calls(item: pytest.Item) -> None:
    """Give the marker `ranks` to a test whose own code calls `run_ranks`."""
    function = getattr(item, "function", None)
    if isinstance(function, FunctionType) and "run_ranks" in function.__code__.co_names:
        item.add_marker("ranks")


def require(marker: str, what: str) -> None:
    """Fail the running test if it lacks a marker.

    Raises:
        pytest.fail.Exception: the test lacks the marker.
    """
    if _current and _current[-1].get_closest_marker(marker) is None:
        pytest.fail(f"{_current[-1].nodeid} {what}: put @pytest.mark.{marker} above the test", pytrace=False)


def _checked_popen(self: Any, args: Any, *more: Any, **options: Any) -> None:
    words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
    if _RAY_PROGRAMS & {Path(os.fsdecode(word)).name for word in words}:
        require("ray", "starts Ray")
    _popen(self, args, *more, **options)


def _checked_start(self: BaseProcess) -> None:
    if getattr(self, "_start_method", None) in ("spawn", "forkserver"):
        require("ranks", "spawns processes")
    _start(self)

"""Runs pytest in a fork of this process, which has already imported the large libraries.

Importing them takes longer than most trials. This process computes nothing with them, so it has no threads when it
forks.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.packages import PRODUCT

_LIBRARIES = ("torch", "torchrec", "ray", "numba", "scipy.sparse", "pyarrow.parquet", "hypothesis")
_OURS = (*PRODUCT, "tests", "benchmarks")


def pytest_in_a_fork(
    root: Path, environment: Mapping[str, str], arguments: Sequence[str], seconds: float
) -> tuple[int | None, str]:
    """Run the tests of the checkout at `root`. Return pytest's exit status, None if time was up, and its output."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            _run(root, environment, arguments, output)
        try:
            status = _wait(child, time.monotonic() + seconds)
        finally:
            # This also ends the processes that it started, which a mutation may have left waiting for each other.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
        output.seek(0)
        return status, output.read()


def _run(root: Path, environment: Mapping[str, str], arguments: Sequence[str], output: IO[str]) -> None:
    """Run pytest in the fork, and end the fork with its status."""
    status = 3  # pytest's status for an error of its own
    try:
        os.setsid()
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w")
        for name in [name for name in os.environ if name.startswith(("COV", "PYTEST_"))]:
            del os.environ[name]
        os.environ.update(environment)
        for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
            del sys.modules[name]
        os.chdir(root)
        sys.path.insert(0, str(root))
        import numba
        import pytest

        numba.config.reload_config()  # type: ignore[attr-defined]  # its cache folder has changed
        status = int(pytest.main(list(arguments)))
        sys.stdout.flush()
    finally:
        os._exit(status)


def _wait(child: int, end: float) -> int | None:
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return None

"""Runs tests on a copy of the checkout that has one mutation. The checkout itself is never written to."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.concerned import Recorded, mirror_of
from tests.mutants.forks import pytest_in_a_fork
from tests.mutants.operators import Mutation
from tests.packages import ROOT

_NOT_COPIED = (".git", ".venv", ".coverage*", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "demo", "runs")
_ONE_PROCESS = "not ranks and not ray and not gpu and not slow"
_RANKS = "(ranks or ray) and not gpu and not slow"
_NOTHING_RAN = 5  # pytest's exit status
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        state: "killed", "survived", or "undecided" if time was up before all tests had run.
        test: the test that failed; empty if none failed, or if the tests could not be collected.
    """

    state: str
    test: str = ""


class Copy:
    """A copy of the checkout in which one file at a time is mutated."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self._caches = folder / "numba"
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        status, output = self._pytest(["--collect-only", "-m", "not slow"], 600, self._caches / "kept")
        if status != 0:
            raise RuntimeError(f"the tests cannot be collected: {output[-2000:]}")
        self._tests = set(output.splitlines())

    def outcome(self, file: str, mutation: Mutation, recorded: Recorded, seconds: float) -> Outcome:
        """Run the tests that ran the line in the records, then those of the package that start processes."""
        end = time.monotonic() + seconds
        ran = recorded.tests(file, mutation.line, mutation.last_line)
        near = [test for test in ran if test in self._tests]
        mirror = mirror_of(file, self.root)
        original = (self.root / file).read_text()
        # Numba recompiles a cached loop if its own file has changed, but not if a loop that it calls has.
        shutil.rmtree(fresh := self._caches / "fresh", ignore_errors=True)
        cache = fresh if "numba" in original else self._caches / "kept"
        (self.root / file).write_text(mutation.source)
        try:
            for marker, tests in ((_ONE_PROCESS, near or mirror), (_RANKS, mirror)):
                status, output = self._pytest(["-x", "-m", marker, *tests], end - time.monotonic(), cache)
                if status is None:
                    return Outcome(state="undecided")
                if status not in (0, _NOTHING_RAN):
                    failed = _FAILED.search(output)
                    return Outcome(state="killed", test=failed[1] if failed else "")
            return Outcome(state="survived")
        finally:
            (self.root / file).write_text(original)

    def failing(self, tests: Sequence[str]) -> set[str]:
        """Return the tests that fail without any mutation."""
        if not tests:
            return set()
        _, output = self._pytest([*tests], 60.0 * len(tests) + 300, self._caches / "kept")
        return set(_FAILED.findall(output))

    def _pytest(self, arguments: Sequence[str], seconds: float, cache: Path) -> tuple[int | None, str]:
        """Return pytest's exit status, None if time was up, and its output."""
        options = ["-q", "--no-header", "--durations=0", "-rfE", "--timeout=100", "-p", "no:cacheprovider"]
        environment = {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(cache)}
        environment |= {"COLUMNS": "1000"}  # so that pytest cuts no name of a test short
        return pytest_in_a_fork(self.root, environment, [*options, *arguments], seconds)

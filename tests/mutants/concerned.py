"""Chooses the tests for a mutation: those that ran its lines in the last `make coverage`, the nearest first."""

from __future__ import annotations

from pathlib import Path

from coverage import CoverageData

from tests.packages import ROOT


class Recorded:
    """The records of `make coverage`: for each line of each file, the tests that ran it in their own process."""

    def __init__(self, file: Path) -> None:
        self._data = CoverageData(str(file))
        self._data.read()

    def has_tests(self) -> bool:
        return any(self._data.measured_contexts())

    def tests(self, file: str, first: int, last: int) -> list[str]:
        """Return the tests that ran lines `first` to `last` of a file, by name: first those of its own package."""
        by_line = self._data.contexts_by_lineno(str(ROOT / file))
        contexts = {context for line in range(first, last + 1) for context in by_line.get(line, ())}
        names = {context.rpartition("|")[0] for context in contexts if context}
        mirror = f"tests/{Path(file).parts[0]}/"
        return sorted(names, key=lambda name: (not name.startswith(mirror), name))


def mirror_of(file: str, root: Path = ROOT) -> list[str]:
    """Return the test files for code that no test runs in its own process, such as compiled loops and code of ranks.

    The package's test files that import the file's module or its folder come first, then the package's others.
    """
    path = Path(file)
    words = {".".join(path.with_suffix("").parts), ".".join(path.parent.parts)}
    tests = sorted((root / "tests" / path.parts[0]).rglob("test_*.py"))
    named = [test for test in tests if any(f"{word} import" in test.read_text() for word in words)]
    return [test.relative_to(root).as_posix() for test in named + [test for test in tests if test not in named]]

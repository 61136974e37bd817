"""A table of what share of each package the tests run, from the records of `make coverage`; too small a share fails.

A share counts statements and branches together: of every `if` and loop, both ways. It includes what ranks, Ray's
workers and the commands that tests start have run. Left out are the bodies of functions that Numba compiles
(`@numba.njit`): what runs is machine code, which cannot be watched. Code that drives a GPU is counted, run or not.

python -m tests.coverage_by_package
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverage import Coverage
from tabulate import tabulate

from tests.packages import PRODUCT, ROOT

LEAST = 90.0  # per cent of each package
_PARTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def main() -> None:
    shares = by_package(recorded())
    print(tabulate(shares.values(), headers="keys", floatfmt=".1f", tablefmt="github"))
    if failures := below(shares):
        sys.exit("\n".join(failures))


def recorded() -> dict[str, dict[str, int]]:
    """For each measured file, its numbers of statements and branches, all and those that ran."""
    measured = Coverage(data_file=str(ROOT / ".coverage"), config_file=str(ROOT / "pyproject.toml"))
    measured.load()
    measured.combine()  # what processes saved that ended after pytest did: Ray's
    measured.save()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        measured.json_report(outfile=str(file), include=[f"{ROOT}/*"])  # and no copies that tests make
        report = json.loads(file.read_text())
    return {name: {part: found["summary"][part] for part in _PARTS} for name, found in report["files"].items()}


def by_package(files: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Any]]:
    """A row of the table for each package of the product; a package without records has a share of zero."""
    rows = {}
    for package in PRODUCT:
        of_it = [parts for name, parts in files.items() if name.startswith(f"{package}/")]
        statements, run, branches, taken = (sum(parts[part] for parts in of_it) for part in _PARTS)
        rows[package] = {
            "package": package,
            "statements": statements,
            "not run": statements - run,
            "branches": branches,
            "not taken": branches - taken,
            "share, %": 100 * (run + taken) / (statements + branches) if statements else 0.0,
        }
    return rows


def below(shares: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each package that is below the least share."""
    return [
        f"coverage: {package} is at {row['share, %']:.1f} %, below {LEAST:.0f} %; "
        f"python -m coverage report --show-missing --include '{package}/*' lists what did not run"
        for package, row in shares.items()
        if row["share, %"] < LEAST
    ]


if __name__ == "__main__":
    main()

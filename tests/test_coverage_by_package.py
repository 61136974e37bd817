"""The table of coverage, and which packages are below the least share."""

import pytest

from tests.coverage_by_package import LEAST, below, by_package, main
from tests.packages import PRODUCT


def parts(statements, run, branches=0, taken=0):
    return {
        "num_statements": statements, "covered_lines": run, "num_branches": branches, "covered_branches": taken
    }  # fmt: skip


def test_a_share_counts_statements_and_branches_of_all_files_of_a_package():
    rows = by_package({"data/a.py": parts(10, 10, 4, 2), "data/b/c.py": parts(4, 2, 2, 0), "database.py": parts(9, 0)})
    assert rows["data"] == {
        "package": "data", "statements": 14, "not run": 2, "branches": 6, "not taken": 4, "share, %": 70.0
    }  # fmt: skip


def test_packages_below_the_least_share_are_named_and_so_are_those_without_records():
    files = {f"{package}/a.py": parts(1000, 1000) for package in PRODUCT[2:]}
    files |= {f"{PRODUCT[0]}/a.py": parts(1000, int(LEAST * 10) - 1)}
    found = below(by_package(files))
    assert [line.split()[1] for line in found] == list(PRODUCT[:2])
    assert f"{PRODUCT[0]} is at 89.9 %, below 90 %" in found[0]
    assert "0.0 %" in found[1]
    assert below(by_package({f"{package}/a.py": parts(1000, int(LEAST * 10)) for package in PRODUCT})) == []


def test_the_command_fails_with_a_line_for_each_package(monkeypatch, capsys):
    monkeypatch.setattr("tests.coverage_by_package.recorded", lambda: {"data/a.py": parts(10, 10)})
    with pytest.raises(SystemExit) as ended:
        main()
    assert len(str(ended.value).splitlines()) == len(PRODUCT) - 1
    assert "| data" in capsys.readouterr().out

"""A table has the same cells in the same places with and without the package that draws it."""

from __future__ import annotations

import sys

import pytest

from contracts.text_table import text_table

ROWS, HEADERS = [("embedding", "1,000"), ("x", "7")], ["weight", "size"]


def test_the_table_without_tabulate_lacks_only_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = text_table(ROWS, HEADERS, right=[1]).splitlines()
    assert drawn == ["weight       size", "---------  ------", "embedding   1,000", "x               7"]
    monkeypatch.setitem(sys.modules, "tabulate", None)
    plain = text_table(ROWS, HEADERS, right=[1]).splitlines()
    assert plain == ["weight      size", "embedding  1,000", "x              7"]


@pytest.mark.parametrize("installed", [True, False])
def test_a_table_without_rows_has_its_headers(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "tabulate", None)
    assert text_table([], HEADERS).splitlines()[0].split() == HEADERS

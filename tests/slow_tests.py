"""Compare the tests that have the marker `slow` with the table in tests/README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).with_name("README.md")
# Every test that pytest found, before it selects by marker.
COLLECTED = pytest.StashKey[list[pytest.Item]]()


def listed(page: str) -> set[str]:
    """Return the names in the page's table of slow tests that have a reason beside them."""
    return {f"tests/{name}" for name in re.findall(r"^\| `([\w/]+\.py::[^`]+)` \| \S.* \|$", page, flags=re.M)}


def marked(items: list[pytest.Item]) -> set[str]:
    """Return the names of the tests that have the marker."""
    return {item.nodeid for item in items if item.get_closest_marker("slow") is not None}


def differences(page: str, items: list[pytest.Item], arguments: list[str]) -> set[str]:
    """Return names that are only on the page or only marked. Files that were collected in part are left out.

    Args:
        page: the text of tests/README.md.
        items: all tests that pytest found.
        arguments: pytest's arguments. A file that an argument names with `::` was collected in part.
    """
    in_parts = {argument.partition("::")[0] for argument in arguments if "::" in argument}
    whole = {item.nodeid.partition("::")[0] for item in items} - in_parts
    return {name for name in listed(page) ^ marked(items) if name.partition("::")[0] in whole}

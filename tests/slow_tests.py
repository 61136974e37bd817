"""The tests with the marker `slow`, as tests/README.md lists them and as pytest found them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).with_name("README.md")
# Every test that was found, before any was left out by its marker.
COLLECTED = pytest.StashKey[list[pytest.Item]]()


def listed(page: str) -> set[str]:
    """Names in the first column of the page's table of slow tests, where a reason stands beside them."""
    return {f"tests/{name}" for name in re.findall(r"^\| `([\w/]+\.py::[^`]+)` \| \S.* \|$", page, flags=re.M)}


def marked(items: list[pytest.Item]) -> set[str]:
    """Names of the tests that have the marker."""
    return {item.nodeid for item in items if item.get_closest_marker("slow") is not None}


def differences(page: str, items: list[pytest.Item], arguments: list[str]) -> set[str]:
    """Names that only the page or only the marker has, of the files that were collected whole.

    Args:
        arguments: what pytest was asked for; a file of which it was asked for one test only was not collected whole.
    """
    in_parts = {argument.partition("::")[0] for argument in arguments if "::" in argument}
    whole = {item.nodeid.partition("::")[0] for item in items} - in_parts
    return {name for name in listed(page) ^ marked(items) if name.partition("::")[0] in whole}

"""Says from which datasets a dataset has grown (`prepare_data.py --append`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ancestors_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the fingerprint and the number of items of each dataset that a dataset has grown from.

    The items of such a dataset are the first items of the grown one, with the same numbers.
    """
    found: dict[str, int] = {}
    origin = manifest.get("source", {}).get("appended_to")
    while isinstance(origin, dict):
        found[str(origin.get("fingerprint"))] = int(origin.get("num_items", 0))
        origin = origin.get("appended_to")
    return found

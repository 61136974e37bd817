"""Reads what a manifest states beside its required fields. Other programs may write these, so any type is possible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def stated(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object of the manifest; an empty one if it has none of this name, or something else."""
    found = manifest.get(name)
    return dict(found) if isinstance(found, dict) else {}

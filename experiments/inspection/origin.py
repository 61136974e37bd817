"""Says from which files, and from which earlier datasets, a dataset was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.inspection.wording import number


def origin(source: Mapping[str, Any]) -> str:
    """Return a sentence or two about the manifest's `source`."""
    path, kind = source.get("path"), source.get("format")
    files = " and ".join(map(str, path)) if isinstance(path, list) else path
    earlier = _earlier(source)
    if not earlier:
        made = (
            f" from {files}" if files else f" with --format {kind}" if kind else ", the manifest does not say from what"
        )
        return f"Prepared{made}."
    first, last = earlier[0].get("path"), earlier[-1].get("path")
    counts = " and ".join(
        f"{number(earlier[0][f'num_{what}'])} of these {what}"
        for what in ("users", "items")
        if isinstance(earlier[0].get(f"num_{what}"), int)
    )
    had = f", which had {counts}" if counts else ""
    said = f"Grown from the dataset {first}{had}, by interactions from {files or 'files that are not stated'}."
    if len(earlier) > 1:
        steps = "" if len(earlier) == 2 else f" in {number(len(earlier) - 1)} steps"
        said += f" That one had grown{steps} from {last}."
    return said


def _earlier(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the manifest states about the datasets that this one has grown from, the latest first."""
    found: list[Mapping[str, Any]] = []
    one = source.get("appended_to")
    while isinstance(one, dict):
        found.append(one)
        one = one.get("appended_to")
    return found

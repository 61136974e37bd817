"""One folder or several: the values of the knobs `dataset` and `graph`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# A folder or URI, several of them, or none.
Places = str | tuple[str, ...] | None


def listed(places: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the folders that a knob names, which may be none."""
    if places is None:
        return ()
    return (places,) if isinstance(places, str) else tuple(places)


def one_or_several(folders: Sequence[str]) -> Places:
    """Return the value of a knob that names these folders; a single one is no list."""
    return folders[0] if len(folders) == 1 else tuple(folders)


def shown(places: str | Sequence[str] | None) -> str:
    """Return the value as `--set` takes it, such as `A` or `[A,B]`."""
    if places is None:
        return "null"
    if isinstance(places, str):
        return places
    return places[0] if len(places) == 1 else f"[{','.join(places)}]"


def changed(places: Places, change: Callable[[str], str]) -> Places:
    """Return the value with each folder changed."""
    if places is None or isinstance(places, str):
        return None if places is None else change(places)
    return tuple(map(change, places))

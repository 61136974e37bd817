"""What tells whether a folder has changed, and how it is made as it was."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

Fingerprint = tuple[str, str]


def fingerprints(folder: Path) -> dict[str, Fingerprint]:
    """The fingerprint of every path below a folder, by its path relative to the folder."""
    return {str(path.relative_to(folder)): _fingerprint(path) for path in sorted(folder.rglob("*"))}


def _fingerprint(path: Path) -> Fingerprint:
    """Equal as long as a path is the same kind of thing: a link to the same target, or a file of the same bytes."""
    if path.is_symlink():
        return ("link", str(path.readlink()))
    if path.is_dir():
        return ("folder", "")
    return ("file", hashlib.sha256(path.read_bytes()).hexdigest())


def differing(before: dict[str, Fingerprint], after: dict[str, Fingerprint]) -> list[str]:
    """The paths that were changed, added or removed."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def restore(folder: Path, sound: Path) -> None:
    """Make a folder equal to another one, of which only what differs is copied."""
    wanted = fingerprints(sound)
    folder.mkdir(exist_ok=True)
    names = differing(wanted, fingerprints(folder))
    for name in names:  # a folder comes before what is in it, and takes it away
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
    for name, (kind, _) in wanted.items():
        if kind == "folder":
            (folder / name).mkdir(exist_ok=True)
        elif name in names or not (folder / name).exists():
            shutil.copy2(sound / name, folder / name, follow_symlinks=False)

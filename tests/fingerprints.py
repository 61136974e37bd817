"""Find out whether a folder has changed, and restore it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

Fingerprint = tuple[str, str]


def fingerprints(folder: Path) -> dict[str, Fingerprint]:
    """Return the fingerprint of every path in a folder, by its path relative to the folder."""
    return {str(path.relative_to(folder)): _fingerprint(path) for path in sorted(folder.rglob("*"))}


def _fingerprint(path: Path) -> Fingerprint:
    """Return a value that changes if a path's kind, a link's target or a file's bytes change."""
    if path.is_symlink():
        return ("link", str(path.readlink()))
    if path.is_dir():
        return ("folder", "")
    return ("file", hashlib.sha256(path.read_bytes()).hexdigest())


def differing(before: dict[str, Fingerprint], after: dict[str, Fingerprint]) -> list[str]:
    """Return the paths that were changed, added or removed."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def restore(folder: Path, sound: Path) -> None:
    """Make a folder equal to the sound one. Only files that differ are copied."""
    wanted = fingerprints(sound)
    folder.mkdir(exist_ok=True)
    names = differing(wanted, fingerprints(folder))
    for name in names:  # a folder comes before its files, and is deleted with them
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

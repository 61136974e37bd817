"""What tells whether a folder has changed, at the cost of looking at its files and not of reading them all."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SMALL_BYTES = 1 << 16

Fingerprint = tuple[object, ...]


def fingerprints(folder: Path) -> dict[str, Fingerprint]:
    """The fingerprint of every path below a folder, by its path relative to the folder."""
    return {str(path.relative_to(folder)): fingerprint(path) for path in sorted(folder.rglob("*"))}


def fingerprint(path: Path) -> Fingerprint:
    """Equal as long as a path is the same kind of thing with the same content.

    A link is known by its target. A small file is known by a hash of its content, so that one written anew with the
    same content counts as unchanged. A large file is known by its inode, size and times.
    """
    if path.is_symlink():
        return ("link", str(path.readlink()))
    if path.is_dir():
        return ("folder",)
    state = path.stat()
    if state.st_size <= _SMALL_BYTES:
        return ("file", hashlib.sha256(path.read_bytes()).hexdigest())
    return ("file", state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)

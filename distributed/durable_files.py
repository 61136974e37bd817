"""Files that are whole or not there, also after a machine has lost its power."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write aside and rename: readers see the old content or the new, never half."""
    aside = path.with_name(f".{path.name}.unfinished")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def file_digest(path: Path, flush: bool = False) -> str:
    """SHA-256 of a file's content, in hexadecimal; with `flush`, once it is on disk."""
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Files that are whole or not there, also after a machine has lost its power."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write aside and rename: readers see the old content or the new, never half.

    When this returns, the new content and the file's name are on disk.
    """
    aside = path.with_name(f".{path.name}.unfinished")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    flush_to_disk(path.parent)


def file_digest(path: Path, flush: bool = False) -> str:
    """SHA-256 of a file's content, in hexadecimal; with `flush`, once it is on disk."""
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, line: str) -> None:
    """Add a line to the end of a file that is there. When this returns, the line is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def flush_to_disk(folder: Path) -> None:
    """Put the names of a folder's files on disk: fsync of a file alone keeps its content, not its name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

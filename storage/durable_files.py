"""Files that are whole or not there, also after a machine has lost its power."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

_REPLACED = ".replaced"  # ends the name of a folder that has moved out of the way of its successor


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


def replace_folder(aside: Path, final: Path) -> None:
    """Rename the folder `aside`, whose files are on disk, to `final`; a folder of that name moves out of the way first.

    The old folder is deleted only when the new one has its name on disk, so one of the two is whole at any moment.
    `restore_replaced` brings the old one back if the process dies in between.

    Raises:
        OSError: the folder could not be renamed; the old one is where it was.
    """
    old = final.with_name(f".{final.name}{_REPLACED}")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    try:
        os.replace(aside, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    flush_to_disk(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_replaced(folder: Path) -> None:
    """Clean up after a process that died in `replace_folder`: old folders get their names back, or go if replaced."""
    for old in folder.glob(f".*{_REPLACED}"):
        final = old.with_name(old.name.removeprefix(".").removesuffix(_REPLACED))
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, final)


def flush_to_disk(folder: Path) -> None:
    """Put the names of a folder's files on disk: fsync of a file alone keeps its content, not its name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

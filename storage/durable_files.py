"""Files and folders that are whole or not there, also after a machine has lost its power.

The one rule for everything this project writes: fill a temporary name beside the target, flush the content to disk,
rename, flush the new name to disk. A reader sees the old content or the new content, never half of it.

A process that is killed while it writes leaves its temporary name behind; `is_temporary` recognises such names.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".unfinished"  # ends the name of a file or folder that is still being written
_REPLACED = ".replaced"  # ends the name of a folder that has moved out of the way of its successor
_EARLIER = (".tmp", ".partial")  # how earlier versions ended the names of what they had not finished
_TEMPORARY = re.compile(r"\..+(" + "|".join(map(re.escape, (_UNFINISHED, *_EARLIER))) + ")")


@contextmanager
def replacing(path: Path, *, one_writer: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write a file to; it becomes `path` when the block ends without an error.

    When the block is left, the file's content and its name are on disk. After an error the temporary file is removed
    and `path` is as it was. The folder of `path` is made where it is missing.

    Args:
        one_writer: no other process writes this file at the same time. The temporary name is then the same each time,
            so a writer overwrites what a killed one left. Without it, each writer has a name of its own: a task that
            Ray believes to be lost may still be writing when its copy starts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path, one_writer)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, *, one_writer: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill; it becomes `folder` when the block ends without an error.

    As `replacing`, for a folder with all its files. A folder that is there stays until its successor is whole.

    Args:
        one_writer: no other process writes this folder at the same time, so what a killed one left is deleted first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(folder, one_writer)
    if one_writer:
        for end in (_UNFINISHED, *_EARLIER):
            shutil.rmtree(folder.with_name(f".{folder.name}{end}"), ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _flush_tree(temporary)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether a file or folder name is one that `replacing` or `replacing_folder` (of any version) writes to."""
    return _TEMPORARY.fullmatch(name) is not None


def write_text(path: Path, text: str) -> None:
    """Replace the content of a UTF-8 file that has one writer at a time; see `replacing`."""
    with replacing(path, one_writer=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    _flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_replaced(folder: Path) -> None:
    """Clean up after a process that died in `replace_folder`: old folders get their names back, or go if replaced."""
    for old in folder.glob(f".*{_REPLACED}"):
        final = old.with_name(old.name.removeprefix(".").removesuffix(_REPLACED))
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, final)


def _temporary_name(path: Path, one_writer: bool) -> Path:
    own = "" if one_writer else f".{uuid.uuid4().hex[:16]}"
    return path.with_name(f".{path.name}{own}{_UNFINISHED}")


def _flush(path: Path) -> None:
    """Put on disk: a file's content, however it was written; a folder's names, which fsync of its files leaves out."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _flush_tree(folder: Path) -> None:
    """Put a folder with everything in it on disk, but for its own name."""
    for here, _, files in os.walk(folder):
        for name in files:
            _flush(Path(here) / name)
        _flush(Path(here))

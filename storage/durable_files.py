"""Write files and folders atomically: after a crash or power loss they are complete or absent.

Everything that this project writes is written in four steps: write under a temporary name beside the target, flush
the content to disk, rename, and flush the new name to disk. A reader sees the old content or the new content, never a
part.

A process that is killed while it writes leaves its temporary file or folder. `is_temporary` recognises their names.
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
_EARLIER = (".tmp", ".partial")  # ended the names of unfinished files and folders in earlier versions
_TEMPORARY = re.compile(r"\..+(" + "|".join(map(re.escape, (_UNFINISHED, *_EARLIER))) + ")")


@contextmanager
def replacing(path: Path, *, one_writer: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write a file to. It is renamed to `path` at the end of the `with` block.

    After the block, the file's content and its name are on disk. After an error, the temporary file is removed and
    `path` is unchanged. The folder of `path` is created if it is missing.

    Args:
        path: the file to write or replace.
        one_writer: set this if no other process writes this file at the same time. The temporary name is then always
            the same, so a writer overwrites the file that a killed writer left. Otherwise each writer has its own
            name, because a task that Ray believes to be lost may still be writing when its copy starts.
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
    """Yield a temporary folder beside `folder` to fill. It is renamed to `folder` at the end of the `with` block.

    This is `replacing` for a folder with all its files. An existing folder stays until the new one is complete.

    Args:
        folder: the folder to write or replace.
        one_writer: set this if no other process writes this folder at the same time. The folder that a killed writer
            left is then deleted first.
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
    """Return whether a name is a temporary name of `replacing` or `replacing_folder`, of this or an earlier version."""
    return _TEMPORARY.fullmatch(name) is not None


def write_text(path: Path, text: str) -> None:
    """Replace the content of a UTF-8 file that only one process writes at a time; see `replacing`."""
    with replacing(path, one_writer=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_line(path: Path, line: str) -> None:
    """Append a line to an existing file. When the function returns, the line is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def replace_folder(aside: Path, final: Path) -> None:
    """Rename the folder `aside` to `final`. An existing folder `final` is renamed to a temporary name first.

    The files of `aside` must be on disk. The old folder is deleted only after the new folder's name is on disk, so
    one of the two exists complete at any time. If the process dies in between, `restore_replaced` restores the old
    folder.

    Raises:
        OSError: the folder could not be renamed. The old folder has its name again.
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
    """Clean up after a process that died in `replace_folder`: rename old folders back, or delete them if replaced."""
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
    """Flush a file's content to disk, or the names in a folder. (fsync of a file does not flush its name.)"""
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
    """Flush a folder and everything in it to disk, except the folder's own name."""
    for here, _, files in os.walk(folder):
        for name in files:
            _flush(Path(here) / name)
        _flush(Path(here))

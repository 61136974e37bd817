"""Finds the files that `--input` names: files, folders, globs and URIs, and the columns in names of folders.

A folder stands for all its data files, also those in folders below. Files and folders whose names begin with a dot or
an underscore, such as `_SUCCESS`, are left out, and so are empty files.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from contracts.errors import InputError
from data.layout import local_path
from storage.object_files import RemoteFile, fetched_file, remote_files
from storage.uris import is_uri

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_WILD = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file of the input.

    Attributes:
        name: its path or URI, for messages.
        partitions: the columns that names of folders such as `event=view` give, with their values for this file.
        remote: the object, for a URI; None: the name is a local path.
    """

    name: str
    partitions: tuple[tuple[str, str | None], ...] = ()
    remote: RemoteFile | None = None

    def local(self) -> Path:
        """Return the local path; an object is copied to this node's cache, once.

        Raises:
            InputError: the object cannot be read.
        """
        return Path(self.name) if self.remote is None else fetched_file(self.remote)


def find_files(inputs: Sequence[str], kind_of: Callable[[str], str | None], reads: str) -> tuple[InputFile, ...]:
    """Return the files of all inputs: in the order of the inputs, and sorted by path within each.

    Args:
        inputs: files, folders, globs and URIs.
        kind_of: returns the kind of a file by its name, such as ".csv"; None: it is no data file. A file that an input
            names itself is taken in any case.
        reads: what is read, for messages, such as "--format table reads .csv files".

    Raises:
        InputError: an input does not exist or has no data files, or a folder or glob has files of two kinds.
    """
    found: list[InputFile] = []
    for path in inputs:
        files = _remote(path, kind_of, reads) if is_uri(path) else _local(path, kind_of, reads)
        _check_one_kind(path, files, kind_of)
        found += files
    names = [file.name for file in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice}: is named twice by --input; name each file once")
    return tuple(found)


def check_apart(inputs: Sequence[str], output: str) -> None:
    """Check that no input holds the output, which the next run would read, or is in it.

    Raises:
        InputError: names both.
    """
    if is_uri(output):
        return
    folder = local_path(output).resolve()
    for path in inputs:
        if is_uri(path):
            continue
        root = local_path(path)
        is_glob = bool(_WILD & set(path)) and not root.exists()
        for found in map(Path, glob.iglob(str(root), recursive=True) if is_glob else [root]):
            found = found.resolve()
            if folder.is_relative_to(found) or found.is_relative_to(folder):
                raise InputError(
                    f"--output {output}: is in the input {path}, whose files are all read, or holds it; write the "
                    "dataset to a folder outside"
                )


def _local(path: str, kind_of: Callable[[str], str | None], reads: str) -> list[InputFile]:
    root = local_path(path)
    if root.is_file():
        return [InputFile(name=str(root))]
    if root.is_dir():
        files = _below(root, root, kind_of)
        if not files:
            raise InputError(f"{path}: is a folder without data files; {reads}")
        return files
    if not _WILD & set(path):
        raise InputError(f"{path}: no such file; {reads}")
    parts = root.parts
    fixed = next(place for place, part in enumerate(parts) if _WILD & set(part))
    top = Path(*parts[:fixed]) if fixed else Path()
    matches = sorted(Path(match) for match in glob.glob(str(root), recursive=True))
    files = []
    for match in matches:
        if match.is_file() and not _is_hidden(match.relative_to(top)) and match.stat().st_size:
            files.append(InputFile(name=str(match), partitions=_partitions(match.relative_to(top))))
        elif match.is_dir():
            files += _below(match, top, kind_of)
    unique = sorted({file.name: file for file in files}.values(), key=lambda file: file.name)
    if not unique:
        raise InputError(f"{path}: no file has such a name; {reads}")
    return unique


def _below(folder: Path, top: Path, kind_of: Callable[[str], str | None]) -> list[InputFile]:
    return [
        InputFile(name=str(file), partitions=_partitions(file.relative_to(top)))
        for file in sorted(folder.rglob("*"))
        if not _is_hidden(file.relative_to(top))
        and kind_of(file.name) is not None
        and file.is_file()
        and file.stat().st_size
    ]


def _remote(uri: str, kind_of: Callable[[str], str | None], reads: str) -> list[InputFile]:
    objects = remote_files(uri)
    if len(objects) == 1 and not objects[0].name:
        return [InputFile(name=objects[0].uri, remote=objects[0])]
    files = [
        InputFile(name=f"{found.uri}", partitions=_partitions(Path(found.name)), remote=found)
        for found in objects
        if found.size and not _is_hidden(Path(found.name)) and kind_of(found.name) is not None
    ]
    if not files:
        raise InputError(f"{uri}: has no data files; {reads}")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _partitions(path: Path) -> tuple[tuple[str, str | None], ...]:
    """Return the columns that the folders of a path below the input give, as Hive and Spark name them."""
    pairs = (part.partition("=") for part in path.parts[:-1])
    return tuple(
        (name, None if value == _NO_VALUE else unquote(value)) for name, equals, value in pairs if equals and name
    )


def _check_one_kind(path: str, files: Sequence[InputFile], kind_of: Callable[[str], str | None]) -> None:
    first = kind_of(files[0].name)
    for file in files:
        if (kind := kind_of(file.name)) != first:
            raise InputError(
                f"{path}: holds files of two kinds, {files[0].name} ({first}) and {file.name} ({kind}); "
                "name one kind with a glob, such as 'FOLDER/**/*.parquet'"
            )

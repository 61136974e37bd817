"""The names of the files in a dataset folder, its manifest, and writing such a folder completely or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.errors import InputError
from storage import manifest as stored_manifest
from storage.durable_files import replacing_folder
from storage.fingerprints import files_digest
from storage.manifest import MANIFEST, Field, ManifestSchema
from storage.paths import expand_home

SCHEMA_VERSION = 1
SEQUENCES = "sequences.arrow"
ITEMS = "items.parquet"
USERS = "users.parquet"
FEATURES = "features"
# Interactions that the k-core has removed, for a later preparation. Optional, and no part of the fingerprint.
HELD_BACK = "held_back.parquet"
# The errors that pyarrow raises for bytes that are not Arrow, Parquet, CSV or JSON.
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


def feature_file(modality: str) -> str:
    """Return the path of a modality's features inside the dataset folder."""
    return f"{FEATURES}/{modality}.npy"


def content_files(modalities: Sequence[str]) -> list[str]:
    """Return all files but the manifest, in the fixed order in which the fingerprint reads them."""
    return [SEQUENCES, ITEMS, USERS, *(feature_file(modality) for modality in sorted(modalities))]


def local_path(path: str) -> Path:
    """Return the path as a local one.

    Raises:
        InputError: the path is empty, or a URI (`object_cache.published` writes folders to those).
    """
    if not path:
        raise InputError("an empty path where a file or folder is expected; name one")
    if "://" in path:
        raise InputError(f"{path}: is a URI where a local folder is needed; name a path")
    return Path(expand_home(path))


def fingerprint_files(folder: Path, modalities: Sequence[str]) -> str:
    """Return the SHA-256 over the name, size and content of all files but the manifest."""
    return files_digest((name, folder / name) for name in content_files(modalities))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished dataset, with the fields of `SCHEMA`; they are not compared with the files.

    Raises:
        InputError: see `storage.manifest.read_manifest`.
    """
    return stored_manifest.read_manifest(folder, SCHEMA)


def _missing(folder: Path) -> str:
    if not folder.is_dir():
        return f"dataset {folder}: no such folder; write it with jobs/prepare_data.py"
    return f"dataset {folder}: has no {MANIFEST}, so it is not a finished dataset; prepare it again"


SCHEMA = ManifestSchema(
    what="dataset",
    version=SCHEMA_VERSION,
    fields=(
        Field("num_users", int),
        Field("num_items", int),
        Field("num_interactions", int),
        Field("has_timestamps", bool),
        Field("modalities", dict),
        Field("bytes", dict),
        Field("fingerprint", str),
    ),
    modality_fields=(Field("dim", int), Field("dtype", str), Field("num_present", int)),
    again="prepare the dataset again",
    missing=_missing,
    maker="jobs/prepare_data.py",
)


def check_output(path: str, overwrite: bool) -> Path:
    """Return the local folder of `path` if a dataset may be written there.

    This is checked before any work, and again before the finished folder is renamed.

    Raises:
        InputError: `path` is a URI, a file, or a folder that is not empty and `overwrite` is false. With `overwrite`:
            the folder holds something else than a dataset, or other files too, which are never removed.
    """
    folder = local_path(path)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"output {path}: exists and is not a plain folder; name another output")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(f"output {path}: the folder exists and is not empty; name another or pass --overwrite")
        if not (folder / MANIFEST).is_file() or not (folder / SEQUENCES).is_file():
            raise InputError(
                f"output {path}: holds files that are not a dataset, which --overwrite never removes; "
                "name another output or empty the folder yourself"
            )
        own = {MANIFEST, SEQUENCES, ITEMS, USERS, FEATURES, HELD_BACK}
        foreign = sorted(file.name for file in folder.iterdir() if file.name not in own)
        foreign += sorted(f"{FEATURES}/{file.name}" for file in folder.glob(f"{FEATURES}/*") if file.suffix != ".npy")
        if foreign:
            raise InputError(
                f"output {path}: holds {foreign[0]}, which no dataset has and --overwrite never removes; move it away, "
                "or name another output"
            )
    return folder


@contextlib.contextmanager
def staged_folder(path: str, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it on failure.

    With `overwrite`, an old dataset at `path` stays intact until the new one is complete.

    Raises:
        InputError: `check_output` refuses `path`, or a file cannot be written.
    """
    # An absolute path has a parent and a name, also for '.' and for paths with trailing slashes.
    target = Path(os.path.abspath(check_output(path, overwrite)))
    try:
        with replacing_folder(target) as folder:
            yield folder
            check_output(path, overwrite)
    except OSError as error:
        name = error.filename or path
        raise InputError(
            f"output {path}: cannot be written ({name}: {error.strerror or error}); free space or change permissions"
        ) from error

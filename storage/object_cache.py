"""Copy datasets and graphs from object storage, once per node, and publish finished folders to it.

The files of a folder are published first, then `objects.json` (bytes and SHA-256 of each file), then `manifest.json`.
A folder without a manifest counts as absent, so readers see the whole folder or nothing. A folder that was copied
there by other means has no objects.json. Its files are then checked against the listing and, for a dataset, against
the sizes in the manifest.

    MDSREC_CACHE (~/.cache/mdsrec)
        <name>-<hash of URI and manifest>/  a complete copy; it never changes, and may be deleted
        <name>-<hash>.lock                  lock of the process that writes the copy
        .<name>-<hash>.unfinished/          an unfinished copy
        work/<name>-<hash of URI>/          files of a job before they are published
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contracts.errors import InputError
from contracts.terminal import shows_bars
from storage.durable_files import replace_folder, replacing_folder
from storage.manifest import MANIFEST
from storage.object_store import ObjectFolder
from storage.paths import expand_home
from storage.uris import check_name, is_uri

OBJECTS = "objects.json"
# Bytes that must stay free on the cache's disk after a copy.
_SPARE_BYTES = 1 << 28


def cache_folder() -> Path:
    """Return the folder of all copies: `MDSREC_CACHE`, else ~/.cache/mdsrec."""
    named = os.environ.get("MDSREC_CACHE")
    return (Path(expand_home(named)) if named else Path.home() / ".cache" / "mdsrec").absolute()


def fetched(path: str, what: str = "dataset") -> Path:
    """Return the local folder of a dataset or graph. For a URI, this is this node's copy.

    One process makes the copy while the others wait. It is renamed into place when every file has the size and
    SHA-256 that objects.json states. A later call reads only the remote manifest. If a folder is published anew, its
    manifest differs, and so it gets a new copy.

    Args:
        path: a path or URI.
        what: "dataset" or "graph", for messages.

    Raises:
        InputError: the service refuses (`object_store`); the URI holds nothing finished; a file is missing,
            truncated or altered; or the local disk is full. No partial copy is left.
    """
    if not is_uri(path):
        return Path(expand_home(path))
    remote = ObjectFolder(path)
    manifest = remote.read(MANIFEST)
    if manifest is None:
        raise InputError(f"{what} {remote.uri}: has no {MANIFEST}, so there is no finished {what}; correct the URI")
    copy = cache_folder() / _cache_name(remote, manifest)
    if copy.is_dir():
        return copy
    with _writing(cache_folder()), locked(copy):
        if not copy.is_dir():
            _download(remote, manifest, copy)
    return copy


def remote_manifest(uri: str) -> dict[str, Any] | None:
    """Return the manifest of the folder that is published at a URI; None if there is none.

    Raises:
        InputError: the service refuses, or the manifest is not JSON.
    """
    remote = ObjectFolder(uri)
    content = remote.read(MANIFEST)
    return None if content is None else _parsed(remote, MANIFEST, content)


def work_folder(uri: str) -> Path:
    """Return this node's working folder for files that will be published at `uri`. It depends only on the URI."""
    remote = ObjectFolder(uri)
    return cache_folder() / "work" / f"{remote.name}-{hashlib.sha256(remote.uri.encode()).hexdigest()[:16]}"


def check_unpublished(uri: str, what: str = "dataset") -> None:
    """Check, before a job starts its work, that `published` may write to a URI.

    Raises:
        InputError: the URI holds a finished folder, or the service refuses.
    """
    if remote_manifest(uri) is not None:
        raise InputError(f"{uri}: holds a finished {what}, which is never replaced; name another URI or delete it")


def published(folder: Path, uri: str) -> None:
    """Upload a finished folder, its manifest last. Then move the folder: it becomes this node's copy of `uri`.

    Publishing the same folder again does nothing. An interrupted publication starts from the beginning.

    Raises:
        InputError: the URI holds another finished folder, or the service refuses. `folder` is then unchanged, and a
            URI without a manifest counts as empty.
    """
    remote = ObjectFolder(uri)
    manifest = (folder / MANIFEST).read_bytes()
    existing = remote.read(MANIFEST)
    if existing is not None and existing != manifest:
        raise InputError(f"{remote.uri}: holds another finished folder; name another URI or delete that folder first")
    if existing is None:
        files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
        stated = {}
        with _progress(sum(sizes.values()), f"publish {remote.name}") as bar:
            for name, size in sizes.items():
                stated[name] = {"bytes": size, "sha256": remote.upload(folder / name, name)}
                bar.update(size)
        index = {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "files": stated}
        remote.write(OBJECTS, json.dumps(index, indent=1).encode())
        remote.write(MANIFEST, manifest)
    copy = cache_folder() / _cache_name(remote, manifest)
    with _writing(cache_folder()), locked(copy):
        if copy.is_dir():
            shutil.rmtree(folder)
        else:
            replace_folder(folder, copy)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that only one process of this node can hold. If the process dies, the lock is released."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cache_name(remote: ObjectFolder, manifest: bytes) -> str:
    digest = hashlib.sha256(remote.uri.encode() + b"\0" + manifest).hexdigest()
    return f"{remote.name}-{digest[:32]}"


def _download(remote: ObjectFolder, manifest: bytes, copy: Path) -> None:
    """Copy all files to `copy`, which appears only when all are complete. The caller holds the lock of `copy`."""
    files = _stated_files(remote, manifest)
    total = sum(size for size, _ in files.values())
    free = shutil.disk_usage(copy.parent).free
    if total + _SPARE_BYTES > free:
        raise InputError(
            f"{remote.uri}: its {total:,} bytes do not fit in {copy.parent} ({free:,} free); free space there, or set "
            "MDSREC_CACHE to a larger disk"
        )
    with (
        replacing_folder(copy, one_writer=True) as folder,
        _progress(total, f"fetch {remote.name}") as bar,
    ):
        for name, (size, sha256) in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("xb") as sink:
                found = remote.download(name, size, sink)
            if sha256 is not None and found != sha256:
                raise InputError(
                    f"{remote.uri}/{name}: its content has sha256 {found[:12]}, {OBJECTS} says {sha256[:12]}: "
                    "altered; publish the folder again"
                )
            bar.update(size)
        (folder / MANIFEST).write_bytes(manifest)


def _stated_files(remote: ObjectFolder, manifest: bytes) -> dict[str, tuple[int, str | None]]:
    """Return the size and SHA-256 of every file except the manifest, from objects.json.

    Without objects.json, sizes come from the listing, and SHA-256 is None.
    """
    index = remote.read(OBJECTS)
    if index is None:
        found = remote.sizes()
        expected = _parsed(remote, MANIFEST, manifest).get("bytes", {})
        if isinstance(expected, dict):
            for name, size in expected.items():
                if found.get(name) != size:
                    raise InputError(
                        f"{remote.uri}/{name}: {found.get(name, 'no')} bytes, the manifest says {size}: truncated, "
                        "altered or not there yet; copy it again"
                    )
        return {name: (size, None) for name, size in found.items() if name != MANIFEST}
    stated = _parsed(remote, OBJECTS, index)
    if stated.get("manifest_sha256") != hashlib.sha256(manifest).hexdigest():
        raise InputError(
            f"{remote.uri}: {OBJECTS} does not belong to {MANIFEST}: being replaced, or altered; delete the folder and "
            "publish it again"
        )
    files: dict[str, tuple[int, str | None]] = {}
    try:
        for name, facts in stated["files"].items():
            check_name(name, f"{remote.uri}/{OBJECTS}")
            files[name] = (int(facts["bytes"]), str(facts["sha256"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{remote.uri}/{OBJECTS}: is not what this code writes; publish the folder again") from None
    return files


def _parsed(remote: ObjectFolder, name: str, content: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(content)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise InputError(f"{remote.uri}/{name}: not a JSON object, so truncated or altered; write the folder again")
    return tree


@contextlib.contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Turn errors of the local disk into an InputError."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        move = (
            "free space there, or set MDSREC_CACHE to a larger disk" if full else "set MDSREC_CACHE to another folder"
        )
        raise InputError(f"cache {cache}: cannot be written ({error.strerror or error}); {move}") from None


def _progress(total: int, label: str) -> Any:
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=not shows_bars(), leave=False)

"""Datasets and graphs in object storage: copied once per node, published whole.

A published folder holds its files, then `objects.json` (bytes and sha256 of each), then `manifest.json`:
readers see all or nothing. A folder that was copied there by other means has no objects.json; its files
are then checked against the listing and, for a dataset, the manifest's own sizes.

    MDSREC_CACHE (~/.cache/mdsrec)
        <name>-<hash of URI and manifest>/     a copy that is whole: never changed, safe to delete
        <name>-<hash>.lock, .<name>-<hash>.unfinished/
        work/<name>-<hash of URI>/             what a job writes before it is published
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
from storage.object_folder import ObjectFolder
from storage.paths import expand_home
from storage.uris import check_name, is_uri

OBJECTS = "objects.json"
# Left free on the cache's disk when it is known what a copy needs.
_SPARE_BYTES = 1 << 28


def cache_folder() -> Path:
    """Where copies lie: `MDSREC_CACHE`, else ~/.cache/mdsrec."""
    named = os.environ.get("MDSREC_CACHE")
    return (Path(expand_home(named)) if named else Path.home() / ".cache" / "mdsrec").absolute()


def fetched(path: str, what: str = "dataset") -> Path:
    """The local folder of a dataset or graph: a path as it is, a URI as this node's copy.

    The copy is made once, by one process while the others wait, and renamed into place when every file has
    the size and sha256 that the URI states. A later call reads the remote manifest alone; a folder that was
    published anew has another manifest, and so another copy.

    Args:
        path: a path or URI. what: "dataset" or "graph", for messages.

    Raises:
        InputError: see `object_folder`; nothing finished there, a file missing, truncated or altered, or a local
            disk that is full. Nothing half-written stays.
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
    """The manifest of what is published at a URI; None where there is none.

    Raises:
        InputError: the service refuses, or what is there is no manifest.
    """
    remote = ObjectFolder(uri)
    content = remote.read(MANIFEST)
    return None if content is None else _parsed(remote, MANIFEST, content)


def work_folder(uri: str) -> Path:
    """This node's working folder for what will be published at `uri`; the same for the same URI."""
    remote = ObjectFolder(uri)
    return cache_folder() / "work" / f"{remote.name}-{hashlib.sha256(remote.uri.encode()).hexdigest()[:16]}"


def check_unpublished(uri: str, what: str = "dataset") -> None:
    """Asked before the work: whether `published` could write there.

    Raises:
        InputError: something is finished there already, or the service refuses.
    """
    if remote_manifest(uri) is not None:
        raise InputError(f"{uri}: holds a finished {what}, which is never replaced; name another URI or delete it")


def published(folder: Path, uri: str) -> None:
    """Upload a finished folder, its manifest last; then it is this node's copy of `uri` (`folder` is moved).

    Publishing the same folder again does nothing; one that was interrupted goes on as if nothing had been there.

    Raises:
        InputError: something else is finished there, or the service refuses: without a manifest it is no dataset
            and no graph, and `folder` is as it was.
    """
    remote = ObjectFolder(uri)
    manifest = (folder / MANIFEST).read_bytes()
    existing = remote.read(MANIFEST)
    if existing is not None and existing != manifest:
        raise InputError(f"{remote.uri}: holds something else that is finished; name another URI or delete it first")
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
    """Only one process of this node at a time; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cache_name(remote: ObjectFolder, manifest: bytes) -> str:
    digest = hashlib.sha256(remote.uri.encode() + b"\0" + manifest).hexdigest()
    return f"{remote.name}-{digest[:32]}"


def _download(remote: ObjectFolder, manifest: bytes, copy: Path) -> None:
    """Copy all files, and let them count together; the caller holds the lock of `copy`."""
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
    """Size and sha256 of every file but the manifest, from objects.json, else sizes from the listing."""
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
            f"{remote.uri}: {OBJECTS} is of another {MANIFEST}: being replaced, or altered; delete the folder and "
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
    """What the local disk refuses, as one message."""
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

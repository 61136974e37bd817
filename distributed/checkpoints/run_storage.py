"""Copies the files of a run between a URI and the local folder of each node.

If the local folder and the URI differ, the URI is right. The layout at the URI is that of `saving.py`. A
checkpoint's `progress.json` is uploaded after its other files, and `checkpoints/index.json` after that, so a reader
never uses an incomplete checkpoint.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from distributed.checkpoints.index import STEP
from storage.durable_files import replacing
from storage.object_cache import locked, work_folder
from storage.object_store import ObjectFolder
from storage.uris import check_name, is_uri

_INDEX = "checkpoints/index.json"
_PROGRESS = "progress.json"
_SMALL = ("config.yaml", "plan.txt", "start.txt", "metrics*.json*", "evaluation-*.json")


class RunStorage:
    """The files of a run, at a path or a URI.

    For a run at a path, `local` is that path, and the methods that copy to or from a URI do nothing.

    Attributes:
        local: the folder to read and write. For a URI this is a folder in the cache, the same for every process of a
            node.
    """

    def __init__(self, run: str) -> None:
        """Raise InputError if `run` is a URI that is not accepted."""
        self._remote = ObjectFolder(run) if is_uri(run) else None
        self.local = work_folder(run) if self._remote else Path(run)

    @property
    def is_remote(self) -> bool:
        """Whether the run is a URI."""
        return self._remote is not None

    def pull(self, which: str | None = None, tensors: bool = True) -> None:
        """Download the run's small files, and the checkpoints that this node does not have yet.

        Any process of a node may call this; processes of a node take turns. Local small files that the URI does not
        have belong to another run or were never finished, so they are deleted. If the URI has no index of
        checkpoints, the local checkpoints are deleted too.

        Args:
            which: "latest", "best" or a step: download this checkpoint. None: download the latest and the best.
            tensors: whether to download the tensors of a checkpoint, or only its progress.json.

        Raises:
            InputError: see `object_store`, or a checkpoint that is truncated.
        """
        if self._remote is None:
            return
        with locked(self.local):
            self.local.mkdir(parents=True, exist_ok=True)
            there = self._remote.sizes()
            small = [name for name in there if any(fnmatch.fnmatchcase(name, pattern) for pattern in _SMALL)]
            for file in self.local.iterdir():
                if file.is_file() and file.name not in small and any(fnmatch.fnmatchcase(file.name, p) for p in _SMALL):
                    file.unlink()
            for name in small:
                self._fetch(name, there[name])
            if _INDEX not in there:
                shutil.rmtree(self.local / "checkpoints", ignore_errors=True)
                return
            index = self._remote.read(_INDEX)
            for step in _steps(index, which, self._remote.uri):
                self._pull_checkpoint(f"checkpoints/step-{step:08d}", there, tensors)
            self._fetch(_INDEX, there[_INDEX])

    def fetch(self, name: str) -> Path:
        """Return the local path of one file of the run; for a URI, the file is downloaded. It may not exist.

        Raises:
            InputError: the storage service refuses it.
        """
        target = self.local / name
        if self._remote is not None:
            with locked(self.local):
                self.local.mkdir(parents=True, exist_ok=True)
                there = self._remote.sizes()
                if name in there:
                    self._fetch(name, there[name])
                else:
                    target.unlink(missing_ok=True)
        return target

    def push(self, paths: Iterable[str], last: Iterable[str] = ()) -> None:
        """Upload files of the run.

        Args:
            paths: names of files, relative to the run's folder.
            last: names of files that are uploaded after `paths`, in order.

        Raises:
            InputError: the storage service refuses a file.
        """
        if self._remote is None:
            return
        for name in [*paths, *last]:
            self._remote.upload(self.local / name, name)

    def remove(self, prefix: str) -> None:
        """Delete everything below `prefix` at the URI; progress.json first, so that no reader uses a part of it."""
        if self._remote is None:
            return
        check_name(prefix, self._remote.uri)
        for name in self._remote.sizes():
            if name.startswith(f"{prefix}/") and name.endswith(f"/{_PROGRESS}"):
                self._remote.delete(name)
        self._remote.delete_below(prefix)

    def folders_there(self, name: str, holding: str = "") -> set[str]:
        """Return the names of the folders inside a folder of the run at its URI; none for a local run.

        Args:
            name: the outer folder, relative to the run.
            holding: if set, only folders that contain a file of this name.
        """
        if self._remote is None:
            return set()
        inside = (there.removeprefix(f"{name}/") for there in self._remote.sizes() if there.startswith(f"{name}/"))
        return {
            part.split("/")[0] for part in inside if "/" in part and part.endswith(f"/{holding}" if holding else "")
        }

    def rename(self, name: str, other: str) -> None:
        """Rename a small file, locally and at the URI."""
        (self.local / name).touch()  # a user may have put the file at the URI only
        os.replace(self.local / name, self.local / other)
        self.push([other])
        self.discard(name)

    def discard(self, name: str) -> None:
        """Delete a small file if it exists, locally and at the URI."""
        (self.local / name).unlink(missing_ok=True)
        if self._remote is not None and self._remote.read(name) is not None:
            self._remote.delete(name)

    @property
    def arrow(self) -> tuple[str, Any]:
        """The path and the pyarrow file system of the run; None for the local file system."""
        if self._remote is None:
            return str(self.local), None
        return self._remote.arrow

    def has(self, name: str) -> bool:
        """Return whether the run has a small file, locally or at the URI."""
        return (self.local / name).exists() or (self._remote is not None and self._remote.read(name) is not None)

    def _pull_checkpoint(self, folder: str, there: dict[str, int], tensors: bool) -> None:
        """Download the files of a checkpoint that this node does not have yet; progress.json last."""
        assert self._remote is not None
        progress = f"{folder}/{_PROGRESS}"
        if progress not in there:
            return  # `find_checkpoint` raises and lists the existing checkpoints
        local = self.local / folder
        same = (local / _PROGRESS).exists() and (local / _PROGRESS).read_bytes() == self._remote.read(progress)
        if not same:
            shutil.rmtree(local, ignore_errors=True)
        for name in there:
            if tensors and name.startswith(f"{folder}/") and name != progress:
                file = self.local / name
                if not file.exists() or file.stat().st_size != there[name]:  # such as shards that other nodes wrote
                    self._fetch(name, there[name])
        if not same:
            self._fetch(progress, there[progress])

    def _fetch(self, name: str, size: int) -> None:
        assert self._remote is not None
        target = self.local / name
        try:
            with replacing(target) as temporary, temporary.open("xb") as sink:
                self._remote.download(name, size, sink)
        except OSError as error:
            raise InputError(
                f"{target}: cannot be written ({error.strerror or error}); free space, or set MDSREC_CACHE to "
                "another disk"
            ) from None


def _steps(index: bytes | None, which: str | None, uri: str) -> list[int]:
    """Return the steps of the checkpoints to download, ascending."""
    try:
        named = json.loads(index or b"")
        if which is not None and which not in named:
            return [int(which)] if STEP.fullmatch(which) else []
        wanted = named.values() if which is None else [named[which]]
        return sorted({int(step) for step in wanted if step is not None})
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"{uri}/{_INDEX}: is not an index of checkpoints; restore the file from a copy, or delete the run"
        ) from None

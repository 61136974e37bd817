"""Copies single objects from object storage to this node's cache, for input files that no manifest describes.

A copy is named by the object's URI, size and time of modification. So an object that is replaced gets a new copy, and
several processes of a node share one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import InputError
from storage.object_cache import cache_folder, locked
from storage.object_store import ObjectFolder
from storage.uris import check_uri


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """An object as the service listed it.

    Attributes:
        folder: URI of the folder that was listed.
        name: its name below the folder; empty: the folder's URI is the object itself.
        size: its bytes.
        modified: when it was written, in nanoseconds since 1970; 0: the service does not say.
    """

    folder: str
    name: str
    size: int
    modified: int

    @property
    def uri(self) -> str:
        """The object's URI."""
        return f"{self.folder}/{self.name}" if self.name else self.folder


def remote_files(uri: str) -> list[RemoteFile]:
    """Return the object at a URI, or all objects below it, by name.

    Raises:
        InputError: the URI is not supported, nothing is there, or the service refuses.
    """
    scheme, bucket, key = check_uri(uri)
    folder = ObjectFolder(uri)
    if (found := folder.itself()) is not None:
        return [RemoteFile(folder=f"{scheme}://{bucket}/{key}", name="", size=found[0], modified=found[1])]
    listed = folder.listing()
    if not listed:
        folder.check_bucket()
        raise InputError(f"{uri}: nothing is there; correct the URI")
    return [
        RemoteFile(folder=folder.uri, name=name, size=size, modified=modified)
        for name, (size, modified) in listed.items()
    ]


def fetched_file(file: RemoteFile) -> Path:
    """Return this node's copy of an object, and make it first if there is none.

    Raises:
        InputError: the object is missing or altered, the service refuses, or the cache cannot be written.
    """
    name = file.uri.rpartition("/")[2]
    key = f"{file.uri}\0{file.size}\0{file.modified}"
    place = cache_folder() / "input" / hashlib.sha256(key.encode()).hexdigest()[:32]
    copy = place / name
    if copy.is_file():
        return copy
    try:
        with locked(place):
            if not copy.is_file():
                place.mkdir(parents=True, exist_ok=True)
                unfinished = place / ".unfinished"
                with unfinished.open("wb") as sink:
                    ObjectFolder(file.folder).download(file.name, file.size, sink)
                    sink.flush()
                    os.fsync(sink.fileno())
                unfinished.replace(copy)
    except OSError as error:
        raise InputError(
            f"cache {place}: cannot be written ({error.strerror or error}); free space there, or set MDSREC_CACHE to "
            "another folder"
        ) from None
    return copy

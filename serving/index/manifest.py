"""The manifest of an index: what is in its folder, and which run the vectors are from.

An index is a folder with `manifest.json`, and one faiss file for each shard and part. A *shard* is a range of items. A
*part* is a range of the vectors' columns that is searched by itself. There is one part, all columns, unless scores need
the columns of each channel alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import InputError
from serving.index.kinds import IndexOptions
from storage.fingerprints import file_digest

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_AGAIN = "build the index again"
_WHAT = "vector index"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ShardFile(_Strict):
    """A faiss file.

    Attributes:
        bytes: its size.
        sha256: the digest of its content, in hexadecimal.
    """

    bytes: int
    sha256: str


class Shard(_Strict):
    """The items start .. stop - 1.

    Attributes:
        start: its first item.
        stop: the item after its last.
        files: one for each part.
        max_norms: for each part the greatest length of the items' vectors, rounded up.
        vectors_sha256: the digest of the items' vectors as float32.
    """

    start: int
    stop: int
    files: tuple[ShardFile, ...]
    max_norms: tuple[float, ...]
    vectors_sha256: str


class IndexManifest(_Strict):
    """The content of `manifest.json`.

    Attributes:
        schema_version: version of this format.
        what: "vector index".
        options: the kind and all options of the index.
        metric: "inner product".
        num_items: N.
        widths: the width of each part; their sum is D.
        shards: the shards, in the order of items.
        belongs_to: what the vectors were computed from, such as the run and the step of its checkpoint; plain text by
            name.
        faiss: version of faiss that wrote the files.
    """

    schema_version: int
    what: Literal["vector index"]
    options: IndexOptions
    metric: Literal["inner product"]
    num_items: int
    widths: tuple[int, ...]
    shards: tuple[Shard, ...]
    belongs_to: dict[str, str]
    faiss: str

    @property
    def width(self) -> int:
        """D."""
        return sum(self.widths)

    @property
    def max_norms(self) -> tuple[float, ...]:
        """For each part the greatest length of any item's vector, rounded up."""
        return tuple(map(max, zip(*(shard.max_norms for shard in self.shards), strict=True)))

    @property
    def total_bytes(self) -> int:
        """The size of all faiss files."""
        return sum(file.bytes for shard in self.shards for file in shard.files)


def shard_file(folder: Path, number: int, part: int) -> Path:
    """Return the file of a shard and part."""
    return folder / f"shard-{number:05d}-part-{part}.faiss"


def read_manifest(folder: Path) -> IndexManifest:
    """Return the manifest of a finished index.

    Raises:
        InputError: there is none, it is damaged, or another version wrote it.
    """
    file = folder / MANIFEST
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("what") != _WHAT:
            raise InputError(f"{file}: not the manifest of an index, or truncated or altered; {_AGAIN}")
        version = found["schema_version"]
        if version != SCHEMA_VERSION:
            raise InputError(f"{file}: schema_version is {version!r}, this code reads {SCHEMA_VERSION}; {_AGAIN}")
        manifest = IndexManifest.model_validate_json(text)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"index {folder}: has no {MANIFEST}, so it is not a finished index; {_AGAIN}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise InputError(f"{file}: {place}: {first['msg'].lower()}; {_AGAIN}") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{file}: not the manifest of an index, or truncated or altered; {_AGAIN}") from None
    _check_ranges(file, manifest)
    return manifest


def damage(folder: Path, manifest: IndexManifest, number: int, *, verify: bool) -> str:
    """Return what is wrong with the files of a shard; "" if nothing is.

    Args:
        folder: the index's folder.
        manifest: its manifest.
        number: which shard.
        verify: whether to compare digests too, which reads the files.
    """
    for part, expected in enumerate(manifest.shards[number].files):
        file = shard_file(folder, number, part)
        if not file.exists():
            return f"index {folder}: {file.name} is missing"
        size = file.stat().st_size
        if size != expected.bytes:
            return f"{file}: has {size} bytes, expected {expected.bytes}"
        if verify and file_digest(file) != expected.sha256:
            return f"{file}: its content has changed since it was written"
    return ""


def damaged_shards(folder: Path, manifest: IndexManifest) -> list[int]:
    """Return the numbers of the shards whose files are missing or damaged; reads all files."""
    return [n for n in range(len(manifest.shards)) if damage(folder, manifest, n, verify=True)]


def _check_ranges(file: Path, manifest: IndexManifest) -> None:
    ends = [0, *(shard.stop for shard in manifest.shards)]
    ranges_meet = all(shard.start == end < shard.stop for shard, end in zip(manifest.shards, ends, strict=False))
    parts = len(manifest.widths)
    complete = all(len(shard.files) == len(shard.max_norms) == parts for shard in manifest.shards)
    if not (manifest.shards and ranges_meet and ends[-1] == manifest.num_items and parts and complete):
        raise InputError(f"{file}: its shards are not those of {manifest.num_items} items; {_AGAIN}")

"""The checksum of a graph, which shows whether a file was altered since the graph was built.

Every rank opens the graph, and opening checks only dtypes, shapes and ranges. The checksum reads every byte, so a job
compares it once, before any worker starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from graph_builder.work_folder import num_row_blocks
from storage.fingerprints import canonical_json, files_digest
from storage.manifest import MANIFEST

_AGAIN = "build the graph again"


def content_files(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield every file of a graph except its manifest, in the order in which the checksum reads them."""
    for block in range(num_row_blocks(manifest["cooccurrence"]["block_rows"], manifest["num_items"])):
        yield from (f"cooccurrence/block-{block:05d}.{part}.npy" for part in ("indptr", "indices", "weights"))
    for modality in sorted(manifest["modalities"]):
        yield from (f"neighbors/{modality}{part}.npy" for part in ("", ".scores"))
        yield from (f"clusters/{modality}{part}.npy" for part in ("", ".centers"))


def checksum(folder: Path, manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of the manifest (without its checksum) and the name, size and bytes of every other file.

    Raises:
        InputError: a file is missing, or is a link that leads out of the folder.
    """
    said = {name: value for name, value in manifest.items() if name != "checksum"}
    files = ((name, _inside(folder, name)) for name in content_files(manifest))
    try:
        return files_digest(files, canonical_json(said))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); {_AGAIN}") from None


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a graph's file. Raise InputError if it is a link that leads out of the graph's folder."""
    file = folder / name
    if not (real := file.resolve()).is_relative_to(folder.resolve()):
        raise InputError(f"{file}: is a link that leaves the graph, to {real}; put the file itself there")
    return file


def check_checksum(folder: Path, manifest: dict[str, Any]) -> None:
    """Read every byte and compare the checksum with the manifest's.

    Raises:
        InputError: a file was altered since the graph was built.
    """
    actual = checksum(folder, manifest)
    if actual != manifest["checksum"]:
        raise InputError(
            f"{folder / MANIFEST}: checksum is {manifest['checksum'][:12]}, the files have {actual[:12]}: "
            f"a file was altered since; {_AGAIN}"
        )

"""What a graph's manifest must say before it is trusted, and the checksum that says nothing was altered since.

Opening a graph checks forms, lengths and ranges, which every rank can afford. The checksum reads every byte:
jobs ask for it once, before any worker starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from contracts.modalities import check_modality_name
from graph_builder.work import MANIFEST, num_row_blocks
from storage.fingerprints import canonical_json, files_digest

_AGAIN = "build the graph again"
# Dotted fields that readers use, their kinds, and the least a number may be.
_FIELDS: tuple[tuple[str, type, int], ...] = (
    ("fingerprint", str, 0),
    ("checksum", str, 0),
    ("num_items", int, 1),
    ("parameters", dict, 0),
    ("parameters.num_neighbors", int, 1),
    ("cooccurrence", dict, 0),
    ("cooccurrence.block_rows", int, 1),
    ("dataset", dict, 0),
    ("dataset.path", str, 0),
    ("dataset.fingerprint", str, 0),
    ("modalities", dict, 0),
)


def check_fields(file: Path, manifest: dict[str, Any]) -> None:
    """The fields of a graph's manifest that readers use are there and have the right form.

    Raises:
        InputError: names the field, its value and what is expected.
    """
    for name, kind, least in _FIELDS:
        value: Any = manifest
        for part in name.split("."):
            value = value.get(part)
        _check_field(file, name, value, kind, least)
    for modality, facts in manifest["modalities"].items():
        try:
            check_modality_name(modality)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        _check_field(file, f"modalities.{modality}", facts, dict, 0)
        _check_field(file, f"modalities.{modality}.num_centers", facts.get("num_centers"), int, 1)


def _check_field(file: Path, name: str, value: Any, kind: type, least: int) -> None:
    # bool is a kind of int in Python, but no count.
    if type(value) is not kind or (isinstance(value, int) and value < least):
        expected = f"int, at least {least}" if kind is int else kind.__name__
        raise InputError(f"{file}: field {name} is {value!r:.100}, expected {expected}; {_AGAIN}")


def content_files(manifest: dict[str, Any]) -> Iterator[str]:
    """Every file of a graph but its manifest, in the order that the checksum reads them."""
    for block in range(num_row_blocks(manifest["cooccurrence"]["block_rows"], manifest["num_items"])):
        yield from (f"cooccurrence/block-{block:05d}.{part}.npy" for part in ("indptr", "indices", "weights"))
    for modality in sorted(manifest["modalities"]):
        yield from (f"neighbors/{modality}{part}.npy" for part in ("", ".scores"))
        yield from (f"clusters/{modality}{part}.npy" for part in ("", ".centers"))


def checksum(folder: Path, manifest: dict[str, Any]) -> str:
    """SHA-256 over the manifest (but for its own checksum) and the name, size and bytes of every other file.

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
    """The path of a file of the graph, which is no link that leads out of its folder."""
    file = folder / name
    if not (real := file.resolve()).is_relative_to(folder.resolve()):
        raise InputError(f"{file}: is a link that leaves the graph, to {real}; put the file itself there")
    return file


def check_checksum(folder: Path, manifest: dict[str, Any]) -> None:
    """Read every byte and compare with the manifest.

    Raises:
        InputError: something was altered since the graph was built.
    """
    actual = checksum(folder, manifest)
    if actual != manifest["checksum"]:
        raise InputError(
            f"{folder / MANIFEST}: checksum is {manifest['checksum'][:12]}, the files have {actual[:12]}: "
            f"a file was altered since; {_AGAIN}"
        )

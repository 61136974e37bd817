"""Read the manifest of a finished folder and check it against the schema of the package that writes it.

A dataset and a graph are folders with a `manifest.json`. It is written last, so a folder without one is unfinished.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from contracts.modalities import check_modality_name

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Field:
    """A required field of a manifest.

    Attributes:
        name: dotted, such as "parameters.num_neighbors". A dict is declared before its own fields.
        kind: the exact Python type, so that a bool is not accepted as an int.
        least: the smallest allowed value of an int.
    """

    name: str
    kind: type
    least: int = 0


@dataclass(frozen=True, kw_only=True)
class ManifestSchema:
    """The requirements that a manifest must meet to be read.

    Attributes:
        what: the word for such a folder in messages, such as "graph".
        version: the `schema_version` that this code reads.
        fields: required fields of the manifest.
        modality_fields: required fields of each entry of the manifest's dict `modalities`.
        again: the advice of messages about a damaged manifest.
        missing: returns the whole message for a folder without a manifest.
        kind: the required value of the field `kind`; null: such manifests have no kind.
        maker: the command that writes such folders, for the message about another kind.
    """

    what: str
    version: int
    fields: tuple[Field, ...]
    modality_fields: tuple[Field, ...]
    again: str
    missing: Callable[[Path], str]
    kind: str | None = None
    maker: str = ""


def read_manifest(folder: Path, schema: ManifestSchema) -> dict[str, Any]:
    """Return the manifest of a finished folder, after checking that it has all fields of the schema.

    Raises:
        InputError: no manifest, not JSON, another kind or version, or a field that is missing or of another type.
    """
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(schema.missing(folder)) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: not valid JSON, so truncated or altered; {schema.again}") from None
    if not isinstance(manifest, dict):
        manifest = {}
    if schema.kind is not None and manifest.get("kind") != schema.kind:
        found = f"is the manifest of a {_kind_of(manifest)}, not" if _kind_of(manifest) else "is not the manifest"
        raise InputError(f"{file}: {found} of a {schema.what}; name a folder written by {schema.maker}")
    if schema.kind is None and isinstance(manifest.get("kind"), str):
        found = f"is the manifest of a {_kind_of(manifest)}, not of a {schema.what}"
        raise InputError(f"{file}: {found}; name a folder written by {schema.maker}")
    version = manifest.get("schema_version")
    if version != schema.version:
        raise InputError(f"{file}: schema_version is {version!r}, this code reads {schema.version}; {schema.again}")
    _check_fields(file, manifest, schema)
    return manifest


def kind_of_folder(folder: Path) -> str | None:
    """Return what a finished folder is, such as "dataset"; None: its manifest says nothing, or is not there."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return _kind_of(manifest) if isinstance(manifest, dict) else None


def _kind_of(manifest: dict[str, Any]) -> str | None:
    kind = manifest.get("kind")
    if isinstance(kind, str):
        return {"item graph": "graph", "encoded items": "folder of encoded items"}.get(kind, f"folder of kind {kind!r}")
    return "dataset" if "num_interactions" in manifest else None


def _check_fields(file: Path, manifest: dict[str, Any], schema: ManifestSchema) -> None:
    for field in schema.fields:
        _check_field(file, manifest, field, schema.again)
    for modality in manifest["modalities"]:
        try:
            check_modality_name(modality)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        for field in _of_modality(modality, schema):
            _check_field(file, manifest, field, schema.again)


def _of_modality(modality: str, schema: ManifestSchema) -> Iterator[Field]:
    yield Field(f"modalities.{modality}", dict)
    for field in schema.modality_fields:
        yield Field(f"modalities.{modality}.{field.name}", field.kind, field.least)


def _check_field(file: Path, manifest: dict[str, Any], field: Field, again: str) -> None:
    *parents, name = field.name.split(".")
    holder: Any = manifest
    for part in parents:
        holder = holder[part]
    value = holder.get(name)
    if type(value) is not field.kind or (isinstance(value, int) and value < field.least):
        found = f"{value!r:.100}" if name in holder else "missing"
        expected = f"int, at least {field.least}" if field.kind is int else field.kind.__name__
        raise InputError(f"{file}: field {field.name} is {found}, expected {expected}; {again}")

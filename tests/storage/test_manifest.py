"""One reader for all manifests: what it refuses, with which words, and what it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import InputError
from storage.manifest import Field, ManifestSchema, read_manifest

SOUND: dict[str, Any] = {
    "schema_version": 3,
    "kind": "pile",
    "num_stones": 2,
    "made": True,
    "parts": {"name": "top", "size": 1},
    "modalities": {"text": {"dim": 4}},
    "anything": "else",
}
SCHEMA = ManifestSchema(
    what="heap",
    kind="pile",
    maker="jobs/pile.py",
    version=3,
    fields=(
        Field("num_stones", int, least=1),
        Field("made", bool),
        Field("parts", dict),
        Field("parts.name", str),
        Field("modalities", dict),
    ),
    modality_fields=(Field("dim", int),),
    again="pile it up again",
    missing=lambda folder: f"heap {folder.name}: is not there",
)
COUNT = "expected int, at least"


def changed(*path: str, value: Any) -> str:
    tree = json.loads(json.dumps(SOUND))
    inner = tree
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(tree)


def test_a_sound_manifest_is_returned_whole(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(SOUND))
    assert read_manifest(tmp_path, SCHEMA) == SOUND


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(InputError, match=f"heap {folder.name}: is not there"):
            read_manifest(folder, SCHEMA)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON, so truncated or altered; pile it up again"),
        ("[" * 100_000, "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        ("[]", "is not the manifest of a heap; name a folder written by jobs/pile.py"),
        (changed("kind", value=...), "is not the manifest of a heap"),
        (changed("schema_version", value="3"), "schema_version is '3', this code reads 3; pile it up again"),
        (changed("num_stones", value=...), f"field num_stones is missing, {COUNT} 1; pile it up again"),
        (changed("num_stones", value=None), f"field num_stones is None, {COUNT} 1"),
        (changed("num_stones", value=0), f"field num_stones is 0, {COUNT} 1"),
        (changed("num_stones", value=True), f"field num_stones is True, {COUNT} 1"),
        (changed("num_stones", value=2.0), f"field num_stones is 2.0, {COUNT} 1"),
        (changed("made", value=1), "field made is 1, expected bool"),
        (changed("parts", value="x" * 200), "field parts is '" + "x" * 99 + ", expected dict"),
        (changed("parts", "name", value=7), "field parts.name is 7, expected str"),
        (changed("modalities", value=[]), "field modalities is [], expected dict"),
        (changed("modalities", "../x", value={"dim": 4}), "modality name '../x'"),
        (changed("modalities", "a.b", value={"dim": 4}), "modality name 'a.b'"),
        (changed("modalities", "text", value=[1]), "field modalities.text is [1], expected dict"),
        (changed("modalities", "text", value={}), f"field modalities.text.dim is missing, {COUNT} 0"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path, SCHEMA)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)


def test_a_manifest_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\); check its permissions"):
        read_manifest(tmp_path, SCHEMA)

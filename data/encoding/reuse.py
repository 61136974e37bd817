"""Compares an earlier folder of encoded items, which `--reuse` names, with what would be encoded now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from data.encoding.encoded_folder import FITTED, EarlierItems, read_encoded_manifest
from data.encoding.encoders import TFIDF
from data.encoding.request import EncoderSpec

_SHOWN = 12  # digits of a revision, as the job prints it
_ADVICE = "use the same encoder and settings, or leave --reuse out"


def check_reuse(folder: Path, spec: EncoderSpec, several: str, dtype: str) -> None:
    """Check what needs no model: TF-IDF meets TF-IDF of the same width, and means of one dtype meet.

    Raises:
        InputError: they do not, or the folder is not finished.
    """
    manifest = read_encoded_manifest(folder)
    facts, is_tfidf = manifest["encoder"], spec.name == TFIDF
    if (folder / FITTED).exists() != is_tfidf:
        raise InputError(
            f"--reuse {folder}: its vectors are by {_named(facts)}, and these would be by {spec.name}; {_ADVICE}"
        )
    if is_tfidf and facts.get("width") != spec.width:
        raise InputError(
            f"--reuse {folder}: its vectors have {facts.get('width')} values, and --width is {spec.width}; leave "
            "--width out, or --reuse"
        )
    if "list" in (several, manifest.get("several")) or dtype != manifest.get("dtype"):
        raise InputError(
            f"--reuse {folder}: has --several {manifest.get('several')} and --dtype {manifest.get('dtype')}; only "
            "means of the same dtype can be reused"
        )


def check_same_encoder(earlier: EarlierItems, facts: Mapping[str, Any]) -> None:
    """Check that the opened encoder is the earlier one; a model's folder may have another name by now.

    Raises:
        InputError: it is another, or has other settings; names them.
    """
    theirs, ours = _flat(earlier.manifest["encoder"]), _flat(facts)
    differing = [name for name in ours | theirs if ours.get(name) != theirs.get(name) and name != "name"]
    if differing:
        settings = "; ".join(f"{name} is {_shown(theirs.get(name))} there and {_shown(ours.get(name))} here"
                             for name in differing)  # fmt: skip
        raise InputError(
            f"--reuse {earlier.folder}: its vectors are by {_named(earlier.manifest['encoder'])}, and these would be "
            f"by {_named(facts)}: {settings}; {_ADVICE}"
        )


def width_of(folder: Path) -> int | None:
    """Return the number of values of an earlier folder's vectors. Raises InputError if it is not finished."""
    return read_encoded_manifest(folder)["encoder"].get("width")


def _named(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('name', 'an unnamed encoder')}, revision {_shown(facts.get('revision'))}"


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    inner = facts.get("preprocessing")
    outer = {name: value for name, value in facts.items() if name != "preprocessing"}
    return outer | (dict(inner) if isinstance(inner, Mapping) else {})


def _shown(value: Any) -> str:
    """Return a setting for a message; a revision is shortened as the job prints it."""
    text = repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)
    is_digest = len(text) == 64 and " " not in text
    return text[:_SHOWN] if is_digest else text[:60]

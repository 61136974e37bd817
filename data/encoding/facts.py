"""What is known about an encoder: its name, revision and preprocessing; and the comparison of two encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.errors import InputError
from storage.fingerprints import value_digest

_DIGITS = 12


def label_of(facts: Mapping[str, Any]) -> str:
    """Return an encoder's name and a digest of all that decides its vectors, such as `minilm 5f0c2ab31e07`.

    The digest covers every fact but the name, because a folder may be renamed.
    """
    deciding = {name: value for name, value in facts.items() if name != "name"}
    return f"{facts.get('name', 'unnamed')} {value_digest(deciding)[:_DIGITS]}"


def labels_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the label of the encoder of each modality of a dataset that names one in its manifest."""
    facts = {name: modality.get("encoder") for name, modality in manifest["modalities"].items()}
    return {name: label_of(encoder) for name, encoder in facts.items() if isinstance(encoder, dict)}


def check_same_encoders(
    ours: Mapping[str, str], theirs: Mapping[str, str], where: tuple[str, str], advice: str
) -> None:
    """Refuse vectors of different encoders where two datasets meet.

    Args:
        ours: the label of each modality's encoder.
        theirs: likewise; modalities without an encoder on either side are not compared.
        where: how the message names the two sides.
        advice: what the message says to do.

    Raises:
        InputError: a modality has vectors of another encoder, or of another revision or preprocessing of it.
    """
    for modality in sorted(ours.keys() & theirs.keys()):
        if ours[modality].rpartition(" ")[2] != theirs[modality].rpartition(" ")[2]:
            if ours[modality].startswith("tfidf ") and theirs[modality].startswith("tfidf "):
                advice += "; TF-IDF learns from the texts, so encode the items of one with --reuse OF-THE-OTHER"
            raise InputError(
                f"{where[0]}: vectors of {modality} are of the encoder {ours[modality]}, and those of {where[1]} of "
                f"{theirs[modality]} (the digits are a checksum of revision, preprocessing and pooling), so the same "
                f"numbers mean different things; {advice}"
            )

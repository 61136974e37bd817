"""What a modality may be called: its name becomes a file name and a column name, and is read from manifests."""

from __future__ import annotations

import re

from configs.errors import InputError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def is_modality_name(name: str) -> bool:
    """Whether a modality may be called so."""
    return _NAME.fullmatch(name) is not None


def check_modality_name(name: str) -> None:
    """Refuse what is no file name, or leads out of a folder.

    Raises:
        InputError: the name is not a letter followed by letters, digits, '_' or '-'.
    """
    if not is_modality_name(name):
        raise InputError(
            f"modality name {name!r}: must be a letter followed by letters, digits, '_' or '-'; rename the modality"
        )

"""What a modality may be called: its name becomes a file name and a column name, and is read from manifests."""

from __future__ import annotations

import re
from collections.abc import Iterable

from contracts.errors import InputError

# Our own names that stand beside those of modalities: the ID channel, in the records of a run.
RESERVED = ("id",)
# It allows neither spaces nor dots, so an internal name with either can never be a modality's.
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


def check_new_modalities(names: Iterable[str]) -> None:
    """`check_modality_name` for the modalities of a dataset or graph that is about to be written, and two more rules.

    Datasets and graphs from before these rules are still read.

    Raises:
        InputError: a name that is no modality name, one of `RESERVED`, or two that differ by case alone, which are one
            file where the file system ignores case.
    """
    seen: dict[str, str] = {}
    for name in names:
        check_modality_name(name)
        if name in RESERVED:
            raise InputError(f"modality name {name!r}: is what item IDs are called here; rename the modality")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InputError(
                f"modality names {other!r} and {name!r}: differ by case alone, so their files would be one on some "
                "disks; rename one of them"
            )

"""Checks of modality names, which become names of files and columns and are read from manifests."""

from __future__ import annotations

import re
from collections.abc import Iterable

from contracts.errors import InputError

# Names that the records of a run use beside those of modalities: that of the ID channel.
RESERVED = ("id",)
# Neither spaces nor dots are allowed, so an internal name with a space or a dot never collides with a modality's.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def is_modality_name(name: str) -> bool:
    """Return whether a modality may have this name."""
    return _NAME.fullmatch(name) is not None


def check_modality_name(name: str) -> None:
    """Refuse a name that could not be the name of a file, or could lead out of a folder.

    Raises:
        InputError: the name is not a letter followed by letters, digits, '_' or '-'.
    """
    if not is_modality_name(name):
        raise InputError(
            f"modality name {name!r}: must be a letter followed by letters, digits, '_' or '-'; rename the modality"
        )


def check_new_modalities(names: Iterable[str]) -> None:
    """Check the modalities of a dataset or graph that is about to be written.

    Datasets and graphs that were written before these rules are still read.

    Raises:
        InputError: a name fails `check_modality_name`, is one of `RESERVED`, or differs from another only by case: the
            two would be one file on a file system that ignores case.
    """
    seen: dict[str, str] = {}
    for name in names:
        check_modality_name(name)
        if name in RESERVED:
            raise InputError(f"modality name {name!r}: is reserved for item IDs; rename the modality")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InputError(
                f"modality names {other!r} and {name!r}: differ only by case, so some file systems would store both in "
                "one file; rename one of them"
            )

"""Adds to an error about an option that nobody typed that it comes from OLD, and how to replace it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from contracts.errors import InputError
from data.formats.read_options import OPTION_NAMES
from data.prepare.growth.inherited import NOTHING, typed


@contextmanager
def naming_origin(old: str, taken: Mapping[str, Any]) -> Iterator[None]:
    """Raise an InputError of the block again, with where the options come from that its message names.

    Args:
        old: OLD as the user named it.
        taken: the options that were taken from OLD, and not given.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        notes = [
            _note(old, name, taken[name]) for name in taken if name in OPTION_NAMES and _is_named(message, name, taken)
        ]
        if not notes:
            raise
        raise InputError(f"{message} ({'; '.join(notes)})") from error.__cause__


def _is_named(message: str, name: str, taken: Mapping[str, Any]) -> bool:
    flag = f"--{name.replace('_', '-')}"
    return re.search(rf"{flag}(?![\w-])", message) is not None or (
        name == "time_format" and repr(taken[name]) in message
    )


def _note(old: str, name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    move = f"{flag} {NOTHING[name]} leaves it out" if name in NOTHING else f"give {flag} to replace it"
    return f"{typed(name, value)} was not given and is as in {old}; {move}"

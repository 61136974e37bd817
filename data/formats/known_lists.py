"""Recognises tables that are given as lists of items, by their first lines."""

from __future__ import annotations

import re

from contracts.errors import InputError
from data.formats.input_files import InputFile
from data.formats.known_files import first_lines, recognised

_SEPARATORS = {",": "commas", ";": "semicolons", "|": "vertical bars", "::": "two colons"}
_USERS = re.compile(r"(user|userid|user_id|uid|visitorid|customer_id|reviewerid)(:token)?", re.IGNORECASE)
_ITEMS = re.compile(r"(item|itemid|item_id|iid|movieid|asin|parent_asin|article_id|video_id)(:token)?", re.IGNORECASE)
_RULE = "--format lists reads lines of a user and the user's items, separated by white space"


def check_lists(file: InputFile) -> None:
    """Refuse a file whose first lines are a table, or have commas or the like for white space.

    Raises:
        InputError: names what was found and the format that fits.
    """
    lines = [words for line in first_lines(file) if (words := line.split())]
    if not lines:
        return  # reading says why
    known = recognised(file)
    if known is not None and not known.is_items:
        raise InputError(f"{file.name}: looks like {known.what}; {_RULE}; {known.advice}")
    header = re.split(r"[,;|]|::", "\t".join(lines[0]).replace("\t", ","))
    if any(map(_USERS.fullmatch, header)) and any(map(_ITEMS.fullmatch, header)):
        raise InputError(
            f"{file.name}: line 1 is {' '.join(lines[0])!r:.60}, a header of a table; {_RULE}; use --format table"
        )
    for separator, name in _SEPARATORS.items():
        num = sum(_is_separated(words, separator) for words in lines)
        if 2 * num > len(lines):
            example = next(words for words in lines if _is_separated(words, separator))
            raise InputError(
                f"{file.name}: has lines such as {' '.join(example)!r:.60}, separated by {name}; {_RULE}; write spaces "
                f"for {name}, or use --format table with --delimiter {separator!r} and --columns if each line is one "
                "interaction"
            )
    if all(len(words) == 1 for words in lines):
        raise InputError(
            f"{file.name}: has only one word on each line, such as {lines[0][0]!r:.60}; {_RULE}; use --format table if "
            "each line is one interaction"
        )


def _is_separated(words: list[str], separator: str) -> bool:
    """Return whether a line looks separated by this: it ends a word, or is inside the only word."""
    return words[0].endswith(separator) or (len(words) == 1 and separator in words[0].strip(separator))

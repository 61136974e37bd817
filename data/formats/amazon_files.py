"""Checks the set of files that Amazon's formats are given: complete splits, and which column has the users."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from contracts.errors import InputError
from data.formats.input_files import InputFile
from data.formats.known_files import first_lines

SPLIT_COLUMN = "split"
_SPLIT = re.compile(r"\.(train|valid|test)(?=\.csv)", re.IGNORECASE)
_PARTS = ("train", "valid", "test")
_REVIEWER = re.compile(r"A[0-9A-Z]{9,20}")
_PLAIN_TABLE = "--format table --user-column user_id --item-column parent_asin"


def split_files(files: Sequence[InputFile]) -> tuple[InputFile, ...]:
    """Return files called NAME.train.csv, NAME.valid.csv and NAME.test.csv in this order, each with its part as column.

    All training files come first. Files without a split are returned as they are.

    Raises:
        InputError: a part of a split is missing, or there are files with a split and others without one.
    """
    parts: dict[str, dict[str, InputFile]] = defaultdict(dict)
    for file in files:
        if found := _SPLIT.search(Path(file.name).name):
            parts[_SPLIT.sub("", file.name)][found[1].lower()] = file
    if not parts:
        return tuple(files)
    if whole := next((file for file in files if not _SPLIT.search(Path(file.name).name)), None):
        first = next(iter(next(iter(parts.values())).values()))
        raise InputError(
            f"{whole.name} and {first.name}: the first has no split and the second has one; name one kind as --input, "
            f"such as {_SPLIT.sub('.*', first.name)!r}"
        )
    for name, known in parts.items():
        if missing := [part for part in _PARTS if part not in known]:
            there = next(iter(known.values())).name
            raise InputError(
                f"{there}: is part of a split, without {' and '.join(_with_part(name, part) for part in missing)}; "
                f"name all of {', '.join(_PARTS)} as --input, or read the file as it is with {_PLAIN_TABLE}"
            )
    return tuple(
        replace(known[part], partitions=((SPLIT_COLUMN, part),)) for part in _PARTS for known in parts.values()
    )


def _with_part(name: str, part: str) -> str:
    stem, suffix, rest = name.rpartition(".csv")
    return f"{stem}.{part}{suffix}{rest}"


def check_item_first(file: InputFile) -> None:
    """Refuse ratings of 2014, which have the user before the item.

    They are recognised by the ids in the first rows. If those say nothing, the name `ratings_NAME.csv` does.

    Raises:
        InputError: names the command that reads them.
    """
    item_first = user_first = 0
    for line in first_lines(file):
        values = (*line.split(","), "")
        first, second = (bool(_REVIEWER.fullmatch(value)) for value in values[:2])
        item_first += second and not first
        user_first += first and not second
    if user_first > item_first or (Path(file.name).name.startswith("ratings_") and not item_first):
        raise InputError(
            f"{file.name}: looks like ratings of Amazon's release of 2014, with the user first, which --format "
            "amazon2018 does not read; use --format table --columns user,item,rating,timestamp"
        )

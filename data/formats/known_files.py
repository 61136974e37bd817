"""Recognises files of known releases by their first line, so that a wrong `--format` or `--items` can be named."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from contracts.errors import InputError
from data.formats.input_files import InputFile
from data.formats.text_blocks import open_bytes

_FIRST_BYTES = 1 << 16
_ASIN = r"(B[0-9A-Z]{9}|[0-9]{9}[0-9X])"
_REVIEWER = r"A[0-9A-Z]{9,20}"
_PYTHON = (
    "convert it once with: zcat -f FILE | python -c 'import ast, json, sys; "
    "[print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]' > FILE.jsonl"
)


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A kind of file that can be recognised.

    Attributes:
        what: what it is, in words.
        pattern: a regular expression that its first line begins with.
        preset: the format that reads it; empty: none does.
        is_items: whether it describes items.
        advice: what to do with it if it was given elsewhere.
    """

    what: str
    pattern: str
    preset: str
    advice: str
    is_items: bool = False


def _interactions(preset: str, what: str, pattern: str, advice: str = "") -> KnownFile:
    return KnownFile(what=what, pattern=pattern, preset=preset, advice=advice or f"use --format {preset}")


def _items(preset: str, what: str, pattern: str) -> KnownFile:
    advice = f"give it as --items, and the interactions as --input, with --format {preset}"
    return KnownFile(what=what, pattern=pattern, preset=preset, advice=advice, is_items=True)


def _keys(*names: str) -> str:
    """Return a pattern of a JSON object with these keys."""
    return r"\s*\{" + "".join(rf'(?=.*"{name}"\s*:)' for name in names)


# The first that fits counts.
_KNOWN = (
    _interactions("amazon2023", "reviews of Amazon Reviews 2023", _keys("user_id", "parent_asin")),
    _items("amazon2023", "item metadata of Amazon Reviews 2023", _keys("parent_asin", "main_category")),
    _interactions("amazon2023", "ratings of Amazon Reviews 2023", r"user_id,parent_asin,rating,timestamp"),
    _interactions("amazon2018", "reviews of Amazon 2018", _keys("reviewerID", "asin")),
    _items("amazon2018", "item metadata of Amazon 2018", _keys("asin", "(title|brand|category|also_buy|main_cat)")),
    _interactions("amazon2018", "ratings of Amazon 2018", rf"{_ASIN},{_REVIEWER},[0-9.]+,[0-9]+$"),
    _interactions(
        "table",
        "ratings of Amazon's release of 2014, with the user first",
        rf"{_REVIEWER},{_ASIN},[0-9.]+,[0-9]+$",
        "use --format table --columns user,item,rating,timestamp",
    ),
    KnownFile(
        what="Amazon's release of 2014 with Python's notation for JSON",
        pattern=r"\{'[a-zA-Z]+': ",
        preset="",
        advice=_PYTHON,
        is_items=True,
    ),
    _interactions("movielens", "ratings of MovieLens", r"userId,movieId,rating,timestamp"),
    _items("movielens", "movies of MovieLens", r"movieId,title,genres"),
    _interactions("movielens", "ratings of MovieLens", r"[0-9]+::[0-9]+::[0-9.]+::[0-9]+$"),
    _items("movielens", "movies of MovieLens", r"[0-9]+::.+::[A-Za-z|' -]+$"),
    *(
        _interactions("table", f"tags of MovieLens (the ratings are in {name})", pattern, f"use {columns} to read tags")
        for name, pattern, columns in (
            (
                "ratings.csv",
                "userId,movieId,tag,timestamp",
                "--format table --user-column userId --item-column movieId",
            ),
            (
                "ratings.dat",
                "[0-9]+::[0-9]+::[^:]*[^0-9.:][^:]*::[0-9]+$",
                "--format table --delimiter :: --columns user,item,tag,timestamp",
            ),
        )
    ),
    _interactions("movielens", "ratings of MovieLens 100K", r"[0-9]+\t[0-9]+\t[1-5]\t8[0-9]{8}$"),
    _items("movielens", "movies of MovieLens 100K", r"[0-9]+\|[^|]*[A-Za-z][^|]*\|[0-9]{2}-[A-Z][a-z]{2}-[0-9]{4}\|"),
    _interactions("mmrec", "interactions of MMRec", r"userID\titemID\t(.*\t)?x_label"),
    _interactions("mind", "impressions of MIND", r"[0-9]+\t[^\t]+\t[^\t]+M\t[^\t]*\tN[0-9]+"),
    _items("mind", "news of MIND", r"N[0-9]+\t([^\t]*\t){3}"),
    _interactions("unisrec", "sequences of UniSRec or RecBole", r"[^\n]*item_id_list:token_seq"),
    _interactions("recbole", "interactions of RecBole", r"(?=.*user_id:token)(?=.*item_id:token)"),
    _items("recbole", "items of RecBole", r"(?=.*item_id:token\b)"),
)


def recognised(file: InputFile) -> KnownFile | None:
    """Return what a file is by its first line, or None if it is nothing known or cannot be read."""
    lines = first_lines(file)
    return next((known for known in _KNOWN if lines and re.match(known.pattern, lines[0])), None)


def first_lines(file: InputFile) -> list[str]:
    """Return the lines in the first 64 KiB of a file, without empty ones; none if it cannot be read.

    Bytes that are not ASCII stand for themselves, as in Latin-1. The last line may be cut off if there are several.
    """
    try:
        with open_bytes(file.local()) as stream:
            text = bytes(stream.read(_FIRST_BYTES)).removeprefix(b"\xef\xbb\xbf")
    except (OSError, pa.ArrowException):
        return []  # reading says why
    return [line.decode("latin-1") for line in re.split(rb"[\r\n]+", text) if line]


def check_interactions(file: InputFile, preset: str) -> None:
    """Refuse a file that is recognised as something else than interactions of this format.

    Raises:
        InputError: names what it is and the format that reads it.
    """
    known = recognised(file)
    if known is not None and (known.is_items or known.preset != preset):
        raise InputError(f"{file.name}: looks like {known.what}, which --format {preset} does not read; {known.advice}")


def check_items(file: InputFile) -> None:
    """Refuse a file of items that is recognised as interactions, or cannot be read as items.

    Raises:
        InputError: names what it is.
    """
    known = recognised(file)
    if known is None:
        return
    if not known.is_items:
        raise InputError(
            f"{file.name}: looks like {known.what}, but --items are descriptions of items; give it as --input, with "
            f"{known.advice.removeprefix('use ')}"
        )
    if not known.preset:
        raise InputError(f"{file.name}: looks like {known.what}, which cannot be read safely; {known.advice}")

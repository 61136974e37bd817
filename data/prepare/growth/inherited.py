"""Options that a grown dataset takes from OLD's manifest, unless they are given anew."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from data.dataset import Dataset
from data.formats.described import TEXT_OPTIONS, file_kind
from data.formats.input_files import find_files
from data.formats.presets import ITEM_OPTIONS
from data.formats.read_options import OPTION_NAMES
from data.formats.text_blocks import data_suffix

_RULES = ("min_user_interactions", "min_item_interactions", "max_history", "hold_back")
_FRACTIONS = ("valid_fraction", "test_fraction")
_MOMENTS = ("valid_from", "test_from")
# What says that an option of OLD does not hold. Numbers have a unit and dates a format, so either replaces the other.
NOTHING = {"keep": "none", "time_format": "none", "time_unit": "auto"}
_EITHER = {"time_unit": "time_format", "time_format": "time_unit"}


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """The options of a preparation that grows a dataset.

    Attributes:
        options: all of them: those that were given, and OLD's where they were not.
        taken: OLD's that were taken.
        changed: those that were given and are others than OLD's: the value in OLD.
    """

    options: dict[str, Any]
    taken: dict[str, Any]
    changed: dict[str, Any]

    def lines(self, old: str) -> list[str]:
        """Return lines for a person: what was taken from OLD, and what is other than there."""
        lines = []
        if self.taken:
            lines.append(f"as in {old}: {' '.join(typed(name, value) for name, value in self.taken.items())}")
        lines += [
            f"{typed(name, self.options.get(name))}, in {old} {typed(name, before)}"
            for name, before in self.changed.items()
        ]
        return lines


def inherited(
    old: Dataset, kind: str, paths: Sequence[str], given: Mapping[str, Any], allowed: Collection[str]
) -> Inherited:
    """Return the options for growing OLD with files of a format.

    Options of reading are taken only if OLD's rows were read from the same format, and those of text files only if
    they had the same suffix. What describes items (--items and its options) is never taken, and how dates are written
    neither if the new files are Parquet and OLD's were not: their columns have types.

    Args:
        old: OLD.
        kind: the format of the new rows.
        paths: the new input.
        given: the options that were given.
        allowed: the options that the format takes.

    Raises:
        InputError: OLD's split was given by its files, so no rule says where new rows belong.
    """
    source = old.manifest.get("source", {})
    before = {name: source[name] for name in _RULES if source.get(name) is not None}
    if source.get("format") == kind:
        skipped = set(ITEM_OPTIONS) | _of_other_files(_first(source.get("path")), paths)
        before |= {name: source[name] for name in OPTION_NAMES & set(allowed) - skipped if name in source}
    replaced = {other: NOTHING[other] for name, other in _EITHER.items() if name in given and other in before}
    given = {**replaced, **given}
    split = _split(old, given)
    taken = {name: value for name, value in before.items() if name not in given} | split
    changed = {name: value for name, value in before.items() if name in given and _plain(given[name]) != _plain(value)}
    was = old.manifest.get("split", {})
    changed |= {
        name: was[key]
        for name, key in (("split", "method"), *((name, name) for name in (*_MOMENTS, *_FRACTIONS)))
        if name in given and was.get(key) is not None and given[name] != was[key]
    }
    order = sorted(taken, key=lambda name: (name in OPTION_NAMES, name))
    return Inherited(options={**given, **taken}, taken={name: taken[name] for name in order}, changed=changed)


def _split(old: Dataset, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of OLD's split as far as they were not given.

    Raises:
        InputError: the split was given by OLD's files.
    """
    rule = old.manifest.get("split", {})
    method = rule.get("method")
    wanted = given.get("split", method)
    if wanted not in ("leave-one-out", "global-time"):
        raise InputError(
            f"--append {old.path}: its split was given by its files, so no rule says where new rows belong; "
            "add --split leave-one-out or --split global-time"
        )
    taken = {} if "split" in given else {"split": method}
    if wanted == method == "global-time" and not {*_MOMENTS, *_FRACTIONS} & set(given):
        taken |= {name: rule[name] for name in _MOMENTS}
    if wanted == method == "global-time" and {*_FRACTIONS} & set(given):
        taken |= {name: rule[name] for name in _FRACTIONS if name not in given and name in rule}
    return taken


def _of_other_files(before: str, paths: Sequence[str]) -> set[str]:
    """Return the options that say nothing about the new files, because OLD's were of another kind."""
    others = set() if data_suffix(before) == data_suffix(paths[0]) else set(TEXT_OPTIONS)
    if file_kind(before) != ".parquet" and _kind(paths[0]) == ".parquet":
        others.add("time_format")
    return others


def _kind(path: str) -> str | None:
    """Return the kind of a file, or of the first one in a local folder; None: it is not known."""
    if not Path(path).is_dir():
        return file_kind(path)
    with suppress(InputError):  # the format says what is wrong with its input
        return file_kind(find_files([path], file_kind, "")[0].name)
    return None


def _first(paths: Any) -> str:
    return str(paths if isinstance(paths, str) else next(iter(paths or ()), ""))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def typed(name: str, value: Any) -> str:
    """Return an option as a person types it; it is repeated for each value of a list."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return " ".join(
        f"{flag} {shlex.quote(str(part))}" for part in (value if isinstance(value, (list, tuple)) else [value])
    )

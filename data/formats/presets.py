"""The formats of raw interactions: each is a name for a description of files that `FileSource` reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.formats.file_source import FileSource
from data.formats.lists import lists_source
from data.formats.read_options import OPTION_NAMES, ReadOptions
from data.formats.recbole import recbole_source
from data.formats.table import table_source

ITEM_OPTIONS = frozenset({"items", "item_names", "item_id_column", "title_column", "item_columns"})
TIME_OPTIONS = frozenset({"time_unit", "time_format"})


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A format.

    Attributes:
        name: its name as `--format`.
        summary: what it reads, in a line.
        options: the options of `ReadOptions` that it takes.
        source: returns the source for paths and options; it raises InputError where they are wrong.
    """

    name: str
    summary: str
    options: frozenset[str]
    source: Callable[[Sequence[str], ReadOptions], FileSource]


_ALL = (
    Preset(
        name="table",
        summary=".parquet, .csv, .tsv or .jsonl files; the columns are named by options",
        options=OPTION_NAMES,
        source=table_source,
    ),
    Preset(
        name="recbole",
        summary="RecBole's .inter files",
        options=ITEM_OPTIONS | TIME_OPTIONS | {"keep"},
        source=recbole_source,
    ),
    Preset(
        name="lists",
        summary="lines of a user and the user's items, oldest first",
        options=ITEM_OPTIONS,
        source=lists_source,
    ),
)
PRESETS = {preset.name: preset for preset in _ALL}

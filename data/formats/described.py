"""Makes a `FileSource` from the options of a command: what all presets share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from contracts.errors import InputError
from data.formats.columns import shown
from data.formats.delimited_layout import DelimitedLayout
from data.formats.file_source import FileSource
from data.formats.input_files import InputFile, find_files
from data.formats.item_files import ItemFiles
from data.formats.json_lines import JsonLinesLayout
from data.formats.keep_text import parse_condition
from data.formats.known_files import check_items
from data.formats.layouts import Layout, ParquetLayout
from data.formats.read_options import ReadOptions
from data.formats.text_blocks import data_suffix, is_compressed
from data.formats.times import TimeRule

NO_TIMESTAMPS = "none"
TEXT_OPTIONS = ("delimiter", "columns", "quotes")
_ARCHIVES = (".xz", ".lz4", ".zip", ".7z", ".tar", ".tgz")
_SAME_KIND = {".ndjson": ".jsonl", ".json": ".jsonl", ".pq": ".parquet"}
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
_PLAIN_TEXT = (".txt", ".dat", ".data")
_QUOTED = (",", ";")
_WORDS = {"tab": "\t", "space": " "}
_ESCAPED = re.compile(r"\\(t|x[0-9a-fA-F]{2})")
_ITEMS_READ = "--items reads .parquet, .csv, .tsv and .jsonl files"


@dataclass(frozen=True, kw_only=True)
class KnownItems:
    """What a format knows about the files that describe its items; options of the user come first.

    Attributes:
        files: those that were found beside the interactions.
        looked_for: if none were found, the names of the files that were looked for.
        layout: returns how a file of this name holds rows; None, or if it returns None: as the suffix says.
        id_column: the column of source ids.
        title_columns: the columns that are joined to the item's text.
        broken: a text that holds this is no text of an item and is left out; None: all are.
    """

    files: tuple[InputFile, ...] = ()
    looked_for: tuple[str, ...] = ()
    layout: Callable[[str], Layout | None] | None = None
    id_column: str = "item"
    title_columns: tuple[str, ...] = ()
    broken: str | None = None


def file_kind(name: str, *, with_text: bool = False) -> str | None:
    """Return the suffix that stands for a file's kind, such as ".jsonl"; None: it is no data file.

    Args:
        name: the file's name.
        with_text: whether files such as .txt and .dat are data files too, because the user names their delimiter.
    """
    suffix = data_suffix(name)
    kind = _SAME_KIND.get(suffix, suffix)
    is_data = kind in (".parquet", ".jsonl", *_DELIMITERS) or (with_text and kind in _PLAIN_TEXT)
    return kind if is_data else None


def layout_of(name: str, options: ReadOptions, *, of_items: bool = False) -> Layout:
    """Return the layout of a file by its suffix and the options.

    Args:
        name: the file's name.
        options: the delimiter, the names of columns and whether values are quoted.
        of_items: whether the file describes items, so that messages name the options for it.

    Raises:
        InputError: the suffix is unknown and no delimiter is given, or an option is for text files only.
    """
    kind = file_kind(name, with_text=True)
    if name.lower().endswith(_ARCHIVES):
        raise InputError(f"{name}: is compressed; decompress it first, or compress it as .gz, .bz2 or .zst")
    if kind in (".parquet", ".jsonl"):
        for option in TEXT_OPTIONS:
            if getattr(options, option) is not None:
                flag = _flag(option, of_items)
                raise InputError(f"{name}: is {kind}, and {flag} is for delimited text; leave it out")
        if kind == ".parquet" and is_compressed(name):
            raise InputError(f"{name}: a Parquet file is compressed inside, not as a whole; decompress it first")
        return ParquetLayout() if kind == ".parquet" else JsonLinesLayout()
    delimiter = options.delimiter or _DELIMITERS.get(kind or "")
    if delimiter is None:
        raise InputError(
            f"{name}: suffix {data_suffix(name)!r} is not .parquet, .csv, .tsv or .jsonl; if it is delimited text, "
            f"name its separator with {_flag('delimiter', of_items)}"
        )
    delimiter = _WORDS.get(delimiter) or _ESCAPED.sub(_character, delimiter)
    names = None if options.columns is None else tuple(part.strip() for part in options.columns.split(","))
    quoted = delimiter in _QUOTED if options.quotes is None else options.quotes
    layout = DelimitedLayout(
        delimiter=delimiter, quoted=quoted, names=names, are_names_given=names is not None, of_items=of_items
    )
    layout.check()
    return layout


def _flag(option: str, of_items: bool) -> str:
    """Return the flag of an option for text files, as it is called for the files of items or those of interactions."""
    if option == "quotes":
        return "--quotes, --no-quotes"
    return {"delimiter": "--item-delimiter", "columns": "--item-names"}[option] if of_items else f"--{option}"


def _character(escape: re.Match[str]) -> str:
    return "\t" if escape[1] == "t" else chr(int(escape[1][1:], 16))


def described_source(
    kind: str,
    paths: Sequence[str],
    options: ReadOptions,
    *,
    files: tuple[InputFile, ...],
    layout: Layout,
    columns: Mapping[str, str],
    parameters: Mapping[str, Any],
    next_move: str = "name it with --{role}-column",
    time: TimeRule | None = None,
    known: KnownItems | None = None,
) -> FileSource:
    """Return a source of files.

    Args:
        kind: the name of the format.
        paths: the input as the user named it.
        options: the user's options, of which the conditions, the rules of time and the files of items are used here.
        files: the files of the input.
        layout: how they hold rows.
        columns: for each role, its column; timestamp may be "none".
        parameters: further parameters for the manifest.
        next_move: what to do about a missing column; `{role}` in it is replaced.
        time: how the format writes timestamps; None: as the options say.
        known: what the format knows about its files of items; None: nothing.

    Raises:
        InputError: a condition cannot be read, or options contradict each other.
    """
    known = known or KnownItems()
    if not known.files:
        options.check(known.looked_for)
    time = time or TimeRule(unit=None if options.time_unit == "auto" else options.time_unit, format=options.time_format)
    time.check()
    columns = {role: name for role, name in columns.items() if role != "timestamp" or name != NO_TIMESTAMPS}
    if "timestamp" not in columns and (options.time_unit or options.time_format):
        raise InputError("--time-unit, --time-format: there are no timestamps; leave them out")
    return FileSource(
        name=paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more",
        files=files,
        layout=layout,
        columns=columns,
        parameters={"format": kind, "path": paths[0] if len(paths) == 1 else list(paths)}
        | ({"items": [file.name for file in known.files]} if known.files else {})
        | dict(parameters),
        time=time,
        keep=tuple(map(parse_condition, options.keep)),
        next_move=next_move,
        items=_item_files(options, known),
        looked_for=() if known.files or options.items else known.looked_for,
    )


def _item_files(options: ReadOptions, known: KnownItems) -> ItemFiles | None:
    kind_of = partial(file_kind, with_text=options.item_delimiter is not None)
    files = known.files if options.items is None else find_files([options.items], kind_of, _ITEMS_READ)
    if not files:
        return None
    for file in files:
        check_items(file)
    layout = _items_layout(files[0].name, options, known)
    id_column = options.item_id_column or known.id_column
    titles = options.title_column
    if not titles:
        titles = (
            known.title_columns if options.items is None else _own_titles(files[0], layout, id_column, options, known)
        )
    items = ItemFiles(
        files=files,
        layout=layout,
        id_column=id_column,
        title_columns=titles,
        columns=tuple(part.strip() for part in options.item_columns.split(",")) if options.item_columns else (),
        broken=known.broken,
    )
    items.check()
    return items


def _own_titles(
    file: InputFile, layout: Layout, id_column: str, options: ReadOptions, known: KnownItems
) -> tuple[str, ...]:
    """Return the format's columns of titles for a file that the user named; none if it lacks them and others are read.

    Raises:
        InputError: a column is missing, and nothing else is read.
    """
    names = layout.column_names(file.name, file.local())
    missing = [name for name in known.title_columns if name not in names]
    if not missing or id_column not in names:  # reading says what is wrong with the columns
        return known.title_columns
    if options.item_columns:
        return ()
    raise InputError(
        f"{file.name}: no column {missing[0]!r} among {shown(names)}; name the column of the items' texts with "
        "--title-column, or only columns to carry along with --item-columns"
    )


def _items_layout(name: str, options: ReadOptions, known: KnownItems) -> Layout:
    if options.item_names is None and options.item_delimiter is None:
        own = None if known.layout is None else known.layout(name)
        return own or layout_of(name, ReadOptions(), of_items=True)
    if options.item_names is not None and file_kind(name) in (".parquet", ".jsonl"):
        raise InputError(f"--item-names: is for text without a header, and {name} is none; leave it out")
    return layout_of(name, ReadOptions(columns=options.item_names, delimiter=options.item_delimiter), of_items=True)

"""Describes RecBole's atomic files: .inter with an interaction per row, and .item with titles; headers are typed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contracts.errors import InputError
from data.formats.delimited import check_separator
from data.formats.delimited_layout import DelimitedLayout
from data.formats.described import KnownItems, described_source
from data.formats.file_source import FileSource
from data.formats.input_files import InputFile, find_files
from data.formats.read_options import ReadOptions
from data.formats.text_blocks import data_suffix

COLUMNS = {"user": "user_id:token", "item": "item_id:token", "timestamp": "timestamp:float"}
_ITEM_ID = "item_id:token"
_TITLES = ("title", "movie_title", "item_name", "name", "app_name", "book_title", "news_title")
_READS = "--format recbole reads .inter files"


def recbole_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of `.inter` files; a folder has one.

    Raises:
        InputError: there is no such file, a header lacks one of the three columns, or options contradict each other.
    """
    files = tuple(file for path in paths for file in _inter_files(path))
    layout = DelimitedLayout(delimiter="\t", quoted=False)
    for file in files:
        _check_header(file, layout)
    return described_source(
        "recbole",
        paths,
        options,
        files=files,
        layout=layout,
        columns=COLUMNS,
        parameters=options.given(),
        known=_known_items(files, options, layout),
    )


def _inter_files(path: str) -> tuple[InputFile, ...]:
    files = find_files([path], lambda name: ".inter" if data_suffix(name) == ".inter" else None, _READS)
    if len(files) > 1 and not any(mark in path for mark in "*?["):
        names = ", ".join(file.name.rpartition("/")[2] for file in files)
        raise InputError(f"{path}: expected one .inter file, found {names}; name the file itself as --input")
    return files


def _check_header(file: InputFile, layout: DelimitedLayout) -> None:
    header = layout.column_names(file.name, file.local())
    check_separator(file.name, header, list(COLUMNS.values()))
    missing = [name for name in COLUMNS.values() if name not in header]
    if missing:
        raise InputError(
            f"{file.name}: header {header} lacks {', '.join(missing)}; RecBole interactions need "
            f"{', '.join(COLUMNS.values())} (files with item_id_list are --format unisrec)"
        )


def _known_items(files: Sequence[InputFile], options: ReadOptions, layout: DelimitedLayout) -> KnownItems:
    """Return the NAME.item beside NAME.inter, if it has titles or options name its columns. NAME.user is not read."""
    path = Path(options.items) if options.items is not None else Path(files[0].name).with_suffix(".item")
    if len(files) > 1 or files[0].remote is not None or path.suffix != ".item" or not path.is_file():
        is_sought = len(files) == 1 and files[0].remote is None and path.suffix == ".item"
        return KnownItems(id_column=_ITEM_ID, looked_for=(str(path),) if is_sought else ())
    names = {name.partition(":")[0]: name for name in layout.column_names(str(path), path)}
    titles = tuple(names[title] for title in _TITLES if title in names)[:1]
    is_read = titles or options.title_column or options.item_columns
    return KnownItems(files=(InputFile(name=str(path)),) if is_read else (), id_column=_ITEM_ID, title_columns=titles)

"""Describes files with a user and the user's items a line, oldest first, separated by white space."""

from __future__ import annotations

from collections.abc import Sequence

from data.formats.described import described_source
from data.formats.file_source import FileSource
from data.formats.input_files import find_files
from data.formats.known_lists import check_lists
from data.formats.list_layout import ITEM, USER, ListLayout
from data.formats.read_options import ReadOptions
from data.formats.text_blocks import data_suffix

_SUFFIXES = (".txt", ".dat", ".data", ".lists", ".seq")
_READS = "--format lists reads files of lines with a user and items, such as .txt files"


def lists_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of lists. There are no timestamps: a user's items are in order of time.

    Raises:
        InputError: a file does not exist or is a table, or options contradict each other.
    """
    files = find_files(paths, lambda name: "lists" if data_suffix(name) in _SUFFIXES else None, _READS)
    for file in files:
        check_lists(file)
    return described_source(
        "lists",
        paths,
        options,
        files=files,
        layout=ListLayout(),
        columns={"user": USER, "item": ITEM},
        parameters=options.given(),
    )

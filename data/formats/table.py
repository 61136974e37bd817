"""Describes tables of interactions in Parquet, CSV, other delimited text or JSON lines; the user names the columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from contracts.errors import InputError
from data.formats.described import described_source, file_kind, layout_of
from data.formats.file_source import FileSource
from data.formats.input_files import find_files
from data.formats.read_options import ReadOptions

_READS = "--format table reads .parquet, .csv, .tsv and .jsonl files"


def table_source(paths: Sequence[str], options: ReadOptions) -> FileSource:
    """Return the source of tables of one kind; columns that have no role and no condition are ignored.

    Raises:
        InputError: a file does not exist or has an unknown suffix, files are of two kinds, or options contradict each
            other.
    """
    kind_of = partial(file_kind, with_text=options.delimiter is not None)
    files = find_files(paths, kind_of, _READS)
    kinds = {kind_of(file.name): file.name for file in files}
    if len(kinds) > 1:
        raise InputError(f"{' and '.join(kinds.values())}: are files of two kinds; name files of one kind as --input")
    columns = {
        "user": options.user_column or "user",
        "item": options.item_column or "item",
        "timestamp": options.timestamp_column or "timestamp",
    }
    return described_source(
        "table",
        paths,
        options,
        files=files,
        layout=layout_of(files[0].name, options),
        columns=columns,
        parameters={f"{role}_column": name for role, name in columns.items()} | dict(options.given()),
    )

"""Reads what files tell about items: a text, joined from columns such as title and categories, and further columns.

N items. The files are Parquet, CSV or JSON lines, and have one row for each item. Of rows with the same id, the first
counts. All of it is held in memory, which takes as much as the texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from contracts.errors import InputError
from data.formats.columns import as_ids, as_text, decoded, is_text, shown
from data.formats.encodings import not_utf8
from data.formats.input_files import InputFile
from data.formats.item_texts import joined_list, joined_texts, texts_of
from data.formats.json_lines import JsonLinesLayout
from data.formats.layouts import Layout, Part, Wanted
from data.formats.text_blocks import line_blocks
from data.layout import UNREADABLE

_BLOCK_BYTES = 16 << 20
_JOINED = "\0"  # begins the name of a column with the joined lists of another column
_TAKEN = ("item", "source_id", "popularity", "text", "cold")


@dataclass(frozen=True, kw_only=True)
class ItemFiles:
    """Files that describe items.

    Attributes:
        files: the files.
        layout: how a file holds its rows.
        id_column: the column of source ids.
        title_columns: the columns that are joined to the item's text.
        columns: further columns that are carried along as they are.
        broken: a text that holds this is left out; None: all texts are kept.
    """

    files: tuple[InputFile, ...]
    layout: Layout
    id_column: str
    title_columns: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    broken: str | None = None

    def check(self) -> None:
        """Raise InputError if nothing is read, or a column has a name that items.parquet needs itself."""
        if not self.title_columns and not self.columns:
            raise InputError("--items: nothing is read; name columns with --title-column or --item-columns")
        for name in self.columns:
            if name in _TAKEN or name.startswith("has_"):
                raise InputError(f"--item-columns {name}: a dataset has a column of that name already; rename it")
        if len(set(self.columns)) < len(self.columns):
            raise InputError(f"--item-columns {','.join(self.columns)}: names a column twice; name each once")

    def read(self) -> pa.Table:
        """Return a row for each item of the files.

        Returns:
            Columns item (large_string, each once), text (large_string with nulls) if there are title columns, and the
            further columns under their own names.

        Raises:
            InputError: a file cannot be read, a column is missing, or an id is neither text nor a whole number.
        """
        tables = [self._described(table, file.name) for file in self.files for table in self._tables(file)]
        if not tables:
            raise InputError(f"{self.files[0].name}: has no rows; restore it")
        table = pa.concat_tables(_alike(tables))
        items = table.column("item").combine_chunks()
        codes = items.dictionary_encode().indices
        first = np.unique(codes.to_numpy(zero_copy_only=False), return_index=True)[1]
        return table if len(first) == table.num_rows else table.take(pa.array(np.sort(first)))

    def _tables(self, file: InputFile) -> Iterator[pa.Table]:
        part = Part(name=file.name, path=file.local())
        names = list(dict.fromkeys([self.id_column, *self.title_columns, *self.columns]))
        if isinstance(self.layout, JsonLinesLayout):
            yield from _json_tables(part, names, self.title_columns, self.layout)
            return
        options = dict.fromkeys(self.columns, "--item-columns") | dict.fromkeys(self.title_columns, "--title-column")
        options.pop(self.id_column, None)
        wanted = Wanted(
            roles={"item": self.id_column}, others=options, next_move="name the column of ids with --item-id-column"
        )
        yield from self.layout.tables(part, wanted, _BLOCK_BYTES)

    def _described(self, table: pa.Table, file: str) -> pa.Table:
        """Return item, text and the further columns of a block, without rows that have no id."""
        ids = as_ids(table.column(self.id_column), file, self.id_column)
        columns = {"item": ids}
        if self.title_columns:
            texts = [self._texts(_title_column(table, name), file, name) for name in self.title_columns]
            columns["text"] = joined_texts(texts)
        columns |= {name: _carried(table.column(name), file, name) for name in self.columns}
        described = pa.table(columns)
        return described.filter(ids.is_valid()) if ids.null_count else described

    def _texts(self, column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
        texts = texts_of(column, file, name)
        if self.broken is None:
            return texts
        is_broken = pc.fill_null(pc.match_substring(texts, self.broken), False)
        return pc.if_else(is_broken, pa.scalar(None, pa.large_string()), texts)


def _title_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    joined = _JOINED + name
    return table.column(joined if joined in table.column_names else name)


def _carried(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    column = decoded(column)
    kind = column.type
    return as_text(column, file, name) if pa.types.is_string(kind) or pa.types.is_large_string(kind) else column


def _alike(tables: list[pa.Table]) -> list[pa.Table]:
    """Return the tables with one type a column: a column of several types becomes text."""
    types: dict[str, pa.DataType] = {}
    for name in tables[0].column_names:
        kinds = {table.schema.field(name).type for table in tables} - {pa.null()}
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
        types[name] = kinds.pop() if len(kinds) == 1 else pa.float64() if numbers and kinds else pa.large_string()
    schema = pa.schema(types)
    return [
        pa.table([_cast(table.column(name), kind) for name, kind in types.items()], schema=schema) for table in tables
    ]


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([_text(value) for value in column.to_pylist()], kind)])
    return column.cast(kind)


def _json_tables(part: Part, names: list[str], titles: Sequence[str], layout: JsonLinesLayout) -> Iterator[pa.Table]:
    """Yield columns of JSON lines. Values may be anything; lists in columns of titles are joined."""
    seen = layout.column_names(part.name, part.path)
    for name in names:
        if name not in seen:
            raise InputError(f"{part.name}: no column {name!r} among {shown(seen)} of its first rows; correct the name")
    types: dict[str, pa.DataType] = {}
    num_rows = 0
    try:
        for block in line_blocks(part.name, part.path, 0, None, _BLOCK_BYTES):
            if block.isspace():
                continue
            table = _fast(block, types) if types else None
            if table is None:
                table = _slow(block, names, titles, part, num_rows)
                # A column that has had only nulls so far gets its type from the first block with a value.
                found = {name: table.schema.field(name).type for name in names}
                types = {
                    name: found[name] if types.get(name, pa.null()) == pa.null() else types[name] for name in names
                }
            num_rows += table.num_rows
            yield table
    except UNREADABLE as error:
        raise InputError(f"{part.name}: cannot be read ({' '.join(str(error).split())}); restore the file") from None


def _fast(block: bytes, types: dict[str, pa.DataType]) -> pa.Table | None:
    """Return the rows if Arrow reads them with these types, else None."""
    parse = pajson.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
    try:
        return pajson.read_json(
            pa.BufferReader(block), pajson.ReadOptions(use_threads=False, block_size=len(block)), parse
        )
    except pa.ArrowInvalid:
        return None


def _slow(block: bytes, names: list[str], titles: Sequence[str], part: Part, num_before: int) -> pa.Table:
    """Return the rows of a block whose values do not have one type a column; such a column becomes text.

    A column of titles with lists that are not all of text has a further column, in which the lists are joined.
    """
    found: list[dict[str, Any]] = []
    try:
        lines = block.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise not_utf8(part.name, part.path, "\n") or InputError(f"{part.name}: is not UTF-8 text") from None
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line, strict=False)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(
                f"{part.name}: row {num_before + len(found) + 1} is {line[:60]!r:.60}, expected one JSON object a "
                "line; restore the file"
            )
        found.append(row)
    columns = {name: _column([row.get(name) for row in found]) for name in names}
    for name in titles:
        values = [row.get(name) for row in found]
        if is_text(columns[name].type) and any(isinstance(value, list) for value in values):
            columns[_JOINED + name] = pa.array([joined_list(value) for value in values], pa.large_string())
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {list} and all(type(part) is str or part is None for value in values if value for part in value):
        return pa.array(values, pa.list_(pa.large_string()))
    for allowed, kind in (
        ({str}, pa.large_string()),
        ({bool}, pa.bool_()),
        ({int}, pa.int64()),
        ({int, float}, pa.float64()),
    ):
        if kinds <= allowed and (kind != pa.int64() or all(abs(value or 0) < 2**63 for value in values)):
            return pa.array(values, kind)
    return pa.array([_text(value) for value in values], pa.large_string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return json.dumps(value, ensure_ascii=False)

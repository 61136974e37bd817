"""Reads a table of items a block at a time: ids, and the texts or the images of each item.

A table is a Parquet, CSV, TSV or JSON-lines file, compressed or not, or a folder of Parquet files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.encoding.images import ADDRESS
from data.encoding.json_lines import check_json_lines, json_types
from data.encoding.request import Modality
from data.encoding.wording import one_line
from data.formats.columns import as_ids, check_columns, is_text
from data.formats.delimited import check_separator, parse_options, read_header
from data.formats.quoted_text import quoted_batches
from data.layout import UNREADABLE, local_path

_BLOCK_BYTES = 16 << 20
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".text": "\t", ".txt": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
_PACKED = (".gz", ".zst", ".bz2")
LISTS = pa.large_list(pa.large_string())


@dataclass(frozen=True, kw_only=True)
class ItemTable:
    """A table of items, and which of its columns are read.

    Attributes:
        path: a file, or a folder of Parquet files.
        modality: whether the columns hold texts or images.
        item_column: the column with the items' source ids.
        columns: the columns with texts, which are joined by spaces; or one column with images: paths of files, or the
            bytes of files (Parquet only).
        names: names of the columns of a file without a header; None: its first row has the names.
    """

    path: str
    modality: Modality
    item_column: str
    columns: tuple[str, ...]
    names: tuple[str, ...] | None = None

    def files(self) -> list[Path]:
        """Return the files in a fixed order.

        Raises:
            InputError: there is none.
        """
        root = local_path(self.path)
        if root.is_dir():
            found = sorted(p for p in root.rglob("*.parquet") if p.is_file() and not p.name.startswith(("_", ".")))
            if not found:
                raise InputError(f"{self.path}: the folder holds no .parquet file; name a table of items")
            return found
        if not root.is_file():
            raise InputError(f"{self.path}: no such file; name a table of items: .parquet, .csv, .tsv or .jsonl")
        return [root]

    def holds_bytes(self, file: Path) -> bool:
        """Return whether the images are in the table itself.

        Raises:
            InputError: a column is missing or of another type.
        """
        if file.suffix.lower() != ".parquet":
            return False
        try:
            schema = pq.read_schema(file)
        except UNREADABLE as error:
            raise InputError(f"{file}: not a readable Parquet file ({_line(error)}); restore it") from None
        self._check_columns(schema.names, file)
        kind = _element(schema.field(self.columns[0]).type)
        return self.modality == "image" and is_binary(kind)

    def blocks(self, file: Path) -> Iterator[pa.Table]:
        """Yield the rows in file order: columns item (large_string, no nulls) and values (lists of large_string).

        Raises:
            InputError: the file cannot be read, an id is missing, a column has another type, or an image is a URL.
        """
        start = 0
        try:
            for block in self._raw_blocks(file):
                items = self.ids_of(block.column(0), file, start)
                columns = [
                    self._lists(column, file, name)
                    for column, name in zip(block.columns[1:], self.columns, strict=True)
                ]
                values = columns[0] if len(columns) == 1 else _joined(columns)
                if self.modality == "image":
                    _refuse_urls(values, self.columns[0], file)
                start += len(items)
                yield pa.table({"item": items, "values": values})
        except UNREADABLE as error:
            raise InputError(f"{file}: cannot be read ({_line(error)}); restore it, or correct its format") from None

    def ids_of(self, column: pa.Array | pa.ChunkedArray, file: Path, start: int = 0) -> pa.Array:
        """Return ids as large_string.

        Raises:
            InputError: an id is missing, or neither text nor a whole number; `start` is the number of the first row.
        """
        chunks = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        items = as_ids(chunks, str(file), self.item_column).combine_chunks()
        if items.null_count:
            row = start + pc.index(items.is_null(), True).as_py() + 1
            raise InputError(f"{file}: column {self.item_column} is empty in row {row}; give every item an id")
        return items

    def _raw_blocks(self, file: Path) -> Iterator[pa.RecordBatch]:
        """Yield the item column and the value columns as they are in the file."""
        wanted = [self.item_column, *self.columns]
        suffix = file.with_suffix("").suffix.lower() if file.suffix.lower() in _PACKED else file.suffix.lower()
        if suffix == ".parquet":
            self._check_columns(pq.read_schema(file).names, file)
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                for batch in parquet.iter_batches(batch_size=1 << 14, columns=wanted):
                    yield batch.select(wanted)
        elif suffix in _SEPARATORS:
            yield from self._delimited_blocks(file, _SEPARATORS[suffix], wanted)
        elif suffix in _JSON:
            yield from self._json_blocks(file, wanted)
        else:
            raise InputError(
                f"{file}: suffix {file.suffix!r} is not .parquet, .csv, .tsv, .text or .jsonl (with .gz or .zst if it "
                "is compressed); rename or convert it"
            )

    def _delimited_blocks(self, file: Path, separator: str, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        quoted = separator == ","
        header = self.names
        if header is None:
            header = tuple(read_header(str(file), separator, quoted))
            check_separator(str(file), header, wanted, separator)
        self._check_columns(header, file)
        read = pacsv.ReadOptions(block_size=_BLOCK_BYTES, column_names=self.names)
        parse = parse_options(separator, quoted)
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.large_string()),
            include_columns=list(wanted),
            null_values=[""],
            strings_can_be_null=True,
        )
        with pa.input_stream(str(file), compression="detect") as source:
            if quoted:
                yield from quoted_batches(str(file), source, header=header, read=read, parse=parse, convert=convert)
            else:
                yield from pacsv.open_csv(source, read, parse, convert)

    def _json_blocks(self, file: Path, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # Only these columns are parsed: others may change their types from row to row, as prices in metadata do.
        types, seen = json_types(file, wanted)
        self._check_columns(seen, file)
        parse = pajson.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
        with pa.input_stream(str(file), compression="detect") as source:
            try:
                for block in pajson.open_json(source, pajson.ReadOptions(block_size=_BLOCK_BYTES), parse):
                    yield block.select(list(wanted))
            except pa.ArrowInvalid:  # its rows are counted from the start of a block
                check_json_lines(file, types)
                raise

    def _check_columns(self, names: Sequence[str], file: Path) -> None:
        roles = {"item": self.item_column} | {f"{self.modality}": name for name in self.columns[:1]}
        check_columns(names, roles, str(file), "name it with --{role}-column")
        for name in self.columns[1:]:
            check_columns(names, {self.modality: name}, str(file), "name it with --{role}-column")

    def _lists(self, column: pa.Array, file: Path, name: str) -> pa.Array:
        """Return texts or lists of texts as lists; a null or an empty list stays one value, a null."""
        kind = column.type
        if pa.types.is_dictionary(kind):
            return self._lists(column.dictionary_decode(), file, name)
        if pa.types.is_null(kind) or (_is_list(kind) and pa.types.is_null(kind.value_type)):
            return pa.array([[None]] * len(column), LISTS)
        if is_text(kind):
            texts = column.cast(pa.large_string())
            return pa.LargeListArray.from_arrays(pa.array(np.arange(len(texts) + 1)), texts)
        if _is_list(kind) and is_text(kind.value_type):
            is_empty = pc.fill_null(pc.equal(pc.list_value_length(column), 0), True)
            return pc.if_else(is_empty, pa.scalar([None], LISTS), column.cast(LISTS))
        wanted = "text or lists of texts" if self.modality == "text" else "paths, lists of paths, or bytes in Parquet"
        raise InputError(f"{file}: column {name} is {kind}, expected {wanted}; cast it")


def is_binary(kind: pa.DataType) -> bool:
    """Return whether a column holds the bytes of files, also as Hugging Face's struct with a field `bytes`."""
    if pa.types.is_struct(kind):
        if kind.get_field_index("bytes") < 0:
            return False
        content = kind.field("bytes").type
        return is_binary(content) or (pa.types.is_null(content) and kind.get_field_index("path") >= 0)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _element(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _joined(columns: Sequence[pa.Array]) -> pa.Array:
    """Return for each row one text: the texts of all columns, joined by spaces; empty ones are left out."""
    space = pa.scalar(" ", pa.large_string())
    first, *others = (pc.binary_join(_without_empty(column), space) for column in columns)
    for texts in others:
        both = pc.binary_join_element_wise(first, texts, space)
        first = pc.if_else(pc.equal(first, ""), texts, pc.if_else(pc.equal(texts, ""), first, both))
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(first) + 1)), first)


def _without_empty(lists: pa.Array) -> pa.Array:
    """Return lists without nulls, which `binary_join` would turn into a null for the whole row."""
    kept = lists.flatten().is_valid()
    ends = np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    totals = np.concatenate([[0], np.cumsum(kept.to_numpy(zero_copy_only=False))])
    offsets = totals[np.concatenate([[0], ends])].astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), lists.flatten().filter(kept))


def _refuse_urls(values: pa.Array, column: str, file: Path) -> None:
    found = pc.match_substring_regex(values.flatten(), ADDRESS)
    if not pc.any(found).as_py():
        return
    url = values.flatten().filter(found)[0].as_py()
    raise InputError(
        f"{file}: column {column} holds addresses such as {url[:80]!r}, and nothing is ever downloaded here; download "
        "them first (urls.txt with one address a line: `xargs -n 1 -P 8 curl -sSfO --create-dirs --output-dir IMAGES "
        "< urls.txt`), and give the names of the files with --image-folder IMAGES"
    )


def _line(error: Exception) -> str:
    return one_line(error, 200)

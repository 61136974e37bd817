"""Divides a table of items into parts, each of which one process encodes into one file.

    WORK/plan.json                the table's files with their sizes and times, and the parts; written last
    WORK/input/00000042.parquet   item, values (list of large_string): a part of the table
    WORK/encoded/...              see part_work.py

Images in a table are not copied: such a part has the columns item and row, the place of the image in a row group.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.encoding.item_table import ItemTable
from storage.durable_files import replacing, write_text
from storage.fingerprints import file_digest, value_digest
from storage.plain_json import json_text

PLAN, INPUT = "plan.json", "input"
_READ_ROWS = 64  # rows of images in a table that are in memory at a time


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive rows of the table.

    Attributes:
        number: its place among the parts.
        num_rows: rows of the part.
        digest: SHA-256 of its ids and values; for images in the table, of their ids and places, and of the file's size
            and time.
        file: where the images in the table are; None: the values are in the part's own file.
        column: the column of `file`.
        row_group: the row group of `file`.
    """

    number: int
    num_rows: int
    digest: str
    file: str | None = None
    column: str | None = None
    row_group: int = 0

    def path(self, work: Path) -> Path:
        """Return the part's own file."""
        return work / INPUT / f"{self.number:08d}.parquet"

    def items(self, work: Path) -> pa.Array:
        """Return the source id of each row: large_string [num_rows]."""
        return pq.read_table(self.path(work), columns=["item"]).column(0).combine_chunks()

    def values(self, work: Path) -> Iterator[tuple[int, list[str | bytes | None]]]:
        """Yield the number of each row in the part, and its texts, paths, or images' bytes; a null is a missing one."""
        if self.file is None:
            for row, found in enumerate(pq.read_table(self.path(work), columns=["values"]).column(0)):
                yield row, found.as_py()
            return
        rows = pq.read_table(self.path(work), columns=["row"]).column(0).to_numpy()
        with pq.ParquetFile(self.file, buffer_size=1 << 20, page_checksum_verification=True) as parquet:
            place = done = 0
            for batch in parquet.iter_batches(_READ_ROWS, row_groups=[self.row_group], columns=[self.column]):
                stop = int(np.searchsorted(rows, place + len(batch)))
                for number in range(done, stop):
                    yield number, _bytes_of(batch.column(0)[int(rows[number]) - place].as_py())
                place, done = place + len(batch), stop
                if done == len(rows):
                    return


def _bytes_of(found: Any) -> list[str | bytes | None]:
    several = found if isinstance(found, list) else [found]
    images: list[str | bytes | None] = [_of_struct(image) if isinstance(image, dict) else image for image in several]
    return images or [None]


def _of_struct(image: dict[str, Any]) -> str | bytes | None:
    """Return the bytes, or the path where Hugging Face's datasets have no bytes."""
    content: str | bytes | None = image.get("bytes")
    return image.get("path") if content is None else content


def plan_parts(
    table: ItemTable,
    work: Path,
    rows_per_part: int,
    only: Callable[[pa.Array], pa.Array] | None,
    chosen: str,
    *,
    may_be_none: bool = False,
) -> list[Part]:
    """Divide the table into parts, unless that was done before for the same files.

    One process reads the table once. Memory: one block of the table and one part.

    Args:
        table: the table.
        work: the folder for the parts; it exists.
        rows_per_part: rows of a part.
        only: says which items are wanted, bool for each id; None: all.
        chosen: what identifies `only`.
        may_be_none: whether no row at all is no error.

    Raises:
        InputError: see `ItemTable.blocks`; or no row is left.
    """
    request = {
        "files": [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in table.files()],
        "table": [table.modality, table.item_column, list(table.columns), list(table.names or [])],
        "rows_per_part": rows_per_part,
        "only": chosen,
    }
    try:
        plan = json.loads((work / PLAN).read_text(encoding="utf-8"))
        if plan["request"] == request:
            return [Part(**part) for part in plan["parts"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    (work / PLAN).unlink(missing_ok=True)
    shutil.rmtree(work / INPUT, ignore_errors=True)
    (work / INPUT).mkdir()
    parts: list[Part] = []
    for file in table.files():
        add = _located_parts if table.holds_bytes(file) else _copied_parts
        for part in add(table, file, work, len(parts), rows_per_part, only):
            parts.append(part)
    if not parts and not may_be_none:
        wanted = " that the dataset has" if only else ""
        raise InputError(f"{table.path}: has no items{wanted}, so there is nothing to encode; check the table")
    write_text(work / PLAN, json_text({"request": request, "parts": [asdict(part) for part in parts]}) + "\n")
    return parts


def _copied_parts(
    table: ItemTable,
    file: Path,
    work: Path,
    first: int,
    rows_per_part: int,
    only: Callable[[pa.Array], pa.Array] | None,
) -> Iterator[Part]:
    """Write the parts of a file with ids and values."""
    waiting: list[pa.Table] = []
    number = first
    for block in table.blocks(file):
        waiting.append(block.filter(only(block.column("item"))) if only else block)
        if sum(len(rows) for rows in waiting) < rows_per_part:
            continue
        rows = pa.concat_tables(waiting)
        for start in range(0, len(rows) - rows_per_part + 1, rows_per_part):
            yield _write(rows.slice(start, rows_per_part), work, number)
            number += 1
        waiting = [rows.slice(len(rows) // rows_per_part * rows_per_part)]
    if waiting and len(rows := pa.concat_tables(waiting)):
        yield _write(rows, work, number)


def _write(rows: pa.Table, work: Path, number: int) -> Part:
    part = Part(number=number, num_rows=len(rows), digest="")
    with replacing(part.path(work), one_writer=True) as temporary:
        pq.write_table(rows.combine_chunks(), temporary, compression="zstd", write_page_checksum=True)
        return replace(part, digest=file_digest(temporary))


def _located_parts(
    table: ItemTable,
    file: Path,
    work: Path,
    first: int,
    rows_per_part: int,
    only: Callable[[pa.Array], pa.Array] | None,
) -> Iterator[Part]:
    """Write the parts of a file that holds images: ids, and their rows in a row group, which no part crosses."""
    number, column = first, table.columns[0]
    signature = [file.stat().st_size, file.stat().st_mtime_ns]
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            items = table.ids_of(parquet.read_row_group(group, columns=[table.item_column]).column(0), file)
            rows = pa.table({"item": items, "row": np.arange(len(items))})
            rows = rows.filter(only(items)) if only else rows
            for start in range(0, len(rows), rows_per_part):
                part = _write(rows.slice(start, rows_per_part), work, number)
                digest = value_digest([part.digest, signature, str(file), column, group])
                yield replace(part, digest=digest, file=str(file), column=column, row_group=group)
                number += 1

"""Recommends for the histories of a table, part by part, each to a file of its own, so that it can be continued.

    OUTPUT/_plan.json            run, checkpoint, settings, and the parts of the table; written first
    OUTPUT/part-00000042.parquet user, rank, item, score; a part is there completely or not at all
    OUTPUT/_finished.json        counts; written last

Readers of Parquet folders skip names that begin with "_".
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import InputError
from serving.batch_plan import HISTORY, OPTIONAL, USER, Part, Request
from serving.item_lists import first_line
from serving.loading import load
from serving.predictor import Predictor
from storage.durable_files import is_temporary, replacing, write_text
from storage.parquet_files import parquet_is_whole
from storage.plain_json import json_text

PLAN, FINISHED = "_plan.json", "_finished.json"


@dataclass(kw_only=True)
class Counts:
    """What was counted in some parts.

    Attributes:
        users: users with a list.
        unknown_ids: ids of histories that no item has.
        unknown_choices: ids of exclude and allow that no item has.
        popular: users who got popular items.
        numbers: users whose items were whole numbers, although the source ids look like numbers.
    """

    users: int = 0
    unknown_ids: int = 0
    unknown_choices: int = 0
    popular: int = 0
    numbers: int = 0

    def add(self, other: Counts) -> None:
        for field in fields(Counts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def open_output(folder: Path, request: Request, parts: list[Part], overwrite: bool) -> list[Part]:
    """Prepare the output folder and return the parts that are still to be done.

    A folder that the same command began is continued. One of another command is replaced if `overwrite` is set.

    Raises:
        InputError: the folder belongs to something else, or to another command and `overwrite` is not set.
    """
    plan = {
        "request": asdict(request),
        "files": {name: _footer_digest(Path(name)) for name in dict.fromkeys(part.file for part in parts)},
        "parts": [asdict(part) for part in parts],
    }
    plan = json.loads(json_text(plan))
    if not folder.parent.is_dir():
        raise InputError(f"--output {folder}: the folder that it is in does not exist; create that first")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--output {folder}: exists and is not a folder; name another, or a new one")
    found = _read_plan(folder)
    if found is None and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--output {folder}: holds other files, so it is never replaced; name a new folder")
    if found is not None and found != plan:
        if not overwrite:
            raise InputError(
                f"--output {folder}: was begun with another {_difference(found, plan)}; repeat that command to "
                "continue it, name another folder, or add --overwrite"
            )
        shutil.rmtree(folder)
        found = None
    folder.mkdir(exist_ok=True)
    if found is None:
        write_text(folder / PLAN, json_text(plan) + "\n")
    return [part for part in parts if not _is_sound(folder / part.name)]


def recommend_part(predictor: Predictor, request: Request, part: Part, folder: Path) -> Counts:
    """Write the lists of a part's users. They are those of `Predictor.recommend` for the same rows.

    Raises:
        InputError: a value of the table is missing or wrong. The message names the file and the row.
    """
    try:
        columns = [name for name in (USER, HISTORY, *OPTIONAL) if name in pq.read_schema(part.file).names]
        group = pq.ParquetFile(part.file).read_row_group(part.row_group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"--histories {part.file}: row group {part.row_group} cannot be read ({first_line(error)}); restore the "
            "file, and repeat the command: finished parts are kept"
        ) from None
    rows = group.slice(part.start, part.stop - part.start)
    where = f"--histories {part.file}, row group {part.row_group}, rows {part.start:,} to {part.stop - 1:,}"
    for name in columns:
        if rows.column(name).null_count:
            at = rows.column(name).combine_chunks().is_null().index(pa.scalar(True)).as_py()
            instead = "give every user an id" if name == USER else "give an empty list for no items"
            raise InputError(f"{where}: column {name} is missing in row {part.start + at:,}; {instead}")
    users = rows.column(USER).cast(pa.string())
    lists = {name: rows.column(name) for name in columns if name in OPTIONAL}
    try:
        found = predictor.recommend(
            rows.column(HISTORY),
            request.k,
            hide_history=request.hide_history,
            on_unknown=request.on_unknown,
            **lists,
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    counts = Counts(
        users=len(found),
        unknown_ids=int(found.unknown.sum()),
        unknown_choices=found.unknown_choices,
        popular=int(found.is_popular.sum()),
        numbers=len(found) if found.looks_like_source_ids else 0,
    )
    metadata = {name: str(value) for name, value in asdict(counts).items()}
    table = found.to_table(users.combine_chunks()).replace_schema_metadata(metadata)
    with replacing(folder / part.name) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)
    return counts


def _is_sound(file: Path) -> bool:
    """Return whether a part's file is there and whole. It is read to its end, with the checksums of its pages."""
    return _counts_in(file) is not None and parquet_is_whole(file)


def _counts_in(file: Path) -> Counts | None:
    """Return the counts that a part's file records; None if there is no such file, or its footer is damaged."""
    try:
        kept = pq.read_schema(file).metadata
        return Counts(**{field.name: int(kept[field.name.encode()]) for field in fields(Counts)})
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def finish(folder: Path, parts: list[Part]) -> Counts:
    """Remove what killed workers left, write `_finished.json`, and return the counts of all parts."""
    for path in folder.iterdir():
        if is_temporary(path.name):
            path.unlink(missing_ok=True)
    counts = Counts()
    for part in parts:
        of_part = _counts_in(folder / part.name)
        if of_part is None:
            raise InputError(
                f"--output {folder}: {part.name} is missing or damaged; repeat the command, it is done again"
            )
        counts.add(of_part)
    write_text(folder / FINISHED, json_text({"parts": len(parts), **asdict(counts)}, indent=1) + "\n")
    return counts


def open_predictor(request: Request) -> Predictor:
    """Open the run of a request."""
    step = "best" if request.step is None else request.step
    return load(request.run, step, dataset=request.dataset, graph=request.graph, settings=request.settings)


def in_this_process(request: Request, parts: list[Part], folder: Path) -> Iterator[Counts]:
    """Recommend for the parts, one after the other."""
    predictor = open_predictor(request)
    for part in parts:
        yield recommend_part(predictor, request, part, folder)


def _read_plan(folder: Path) -> Any:
    try:
        return json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _difference(found: Any, plan: Any) -> str:
    """Return the first thing in which two plans differ, with the value that the folder has."""
    try:
        for name, value in plan["request"].items():
            if found["request"].get(name) != value:
                return f"{name}, {found['request'].get(name)!r} instead of {value!r}"
        if found["files"] != plan["files"]:
            return "table of histories, or this one has changed since"
    except (AttributeError, KeyError, TypeError):
        return "plan"
    return "--users-per-part"


def _footer_digest(file: Path) -> str:
    """Return a digest of a Parquet file's size and footer, which has the sizes and the least and greatest values."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        opened.seek(-8, os.SEEK_END)
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(-8 - length, os.SEEK_END)
        return hashlib.sha256(f"{size} ".encode() + opened.read(length)).hexdigest()

"""What is to be recommended for a table of histories, and the parts that it is divided into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.places import Places
from contracts.errors import InputError
from serving.item_lists import OnUnknown, first_line, is_list, is_text

USER, HISTORY = "user", "history"
OPTIONAL = ("exclude", "allow")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is recommended, and how. Two commands with equal requests write equal parts.

    Attributes:
        run: the run's folder or URI.
        step: the checkpoint's step; None for a system that is not trained.
        k: items of a list.
        hide_history: whether items of a history are left out.
        on_unknown: see `Predictor.recommend`.
        dataset: where the run's dataset is, or its datasets are.
        graph: likewise of its graph; None without one.
        settings: knobs of evaluation that decide scores, by name.
    """

    run: str
    step: int | None
    k: int
    hide_history: bool
    on_unknown: OnUnknown
    dataset: Places
    graph: Places
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of the table that become one file: rows start .. stop - 1 of a row group of a file."""

    number: int
    file: str
    row_group: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"part-{self.number:08d}.parquet"


def plan_parts(table: str, users_per_part: int) -> list[Part]:
    """Divide a Parquet file, or the Parquet files of a folder, into parts, and check the columns of each file.

    Raises:
        InputError: there is no such file, it is not Parquet, or a column is missing or of another type.
    """
    root = Path(table)
    files = [root]
    if root.is_dir():
        files = sorted(p for p in root.rglob("*.parquet") if p.is_file() and not p.name.startswith(("_", ".")))
    if not files:
        raise InputError(f"--histories {table}: the folder holds no .parquet file; name one that does")
    parts: list[Part] = []
    first_of: dict[str, Path] = {}
    for file in files:
        try:
            metadata, schema = pq.read_metadata(file), pq.read_schema(file)
        except FileNotFoundError:
            raise InputError(f"--histories {file}: is not there; name a Parquet file, or a folder of them") from None
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"--histories {file}: is not a Parquet file ({first_line(error)}); write one, for example with "
                "pyarrow.parquet.write_table"
            ) from None
        _check_columns(file, schema)
        items = schema.field(HISTORY).type.value_type
        if not pa.types.is_null(items):  # all lists of such a file are empty
            first_of.setdefault("numbers" if pa.types.is_integer(items) else "text", file)
        if len(first_of) > 1:
            raise InputError(
                f"--histories {first_of['numbers']}: gives items as whole numbers, which are dense ids, and "
                f"{first_of['text']} as text, which are source ids; use one kind of ids in all files"
            )
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            for start in range(0, rows, users_per_part):
                stop = min(start + users_per_part, rows)
                parts.append(Part(number=len(parts), file=str(file), row_group=group, start=start, stop=stop))
    if not parts:
        raise InputError(f"--histories {table}: has no rows, so there is nobody to recommend for")
    return parts


def _check_columns(file: Path, schema: pa.Schema) -> None:
    for name in (USER, HISTORY):
        if name not in schema.names:
            raise InputError(
                f"--histories {file}: has no column {name}, only {', '.join(schema.names)[:200]}; expected user (ids), "
                "history (lists of item ids, oldest first), and if wanted exclude and allow (lists of item ids)"
            )
    user = schema.field(USER).type
    if not (is_text(user) or pa.types.is_integer(user)):
        raise InputError(f"--histories {file}: column user holds {user}; expected text or whole numbers")
    for name in (HISTORY, *OPTIONAL):
        if name in schema.names and not is_list(schema.field(name).type):
            raise InputError(
                f"--histories {file}: column {name} holds {schema.field(name).type}; expected lists of item ids"
            )

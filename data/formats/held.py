"""Counts of rows that hold each condition of `--keep`, to say which one to correct if no row is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.formats.columns import decoded
from data.formats.keep import Condition

_NUM_SHOWN = 3
_NUM_LOOKED_AT = 10_000  # rows of a block that values are taken from


@dataclass(frozen=True, kw_only=True)
class Held:
    """How many rows hold a condition.

    Attributes:
        condition: the condition as the user wrote it.
        column: the name of its column.
        rows: the number of rows that hold it.
        seen: the first few values of the column, where no row of a block holds the condition.
    """

    condition: str
    column: str
    rows: int
    seen: Sequence[str] = field(default_factory=tuple)


def held_of(condition: Condition, column: pa.ChunkedArray, holds: np.ndarray) -> Held:
    """Return how many rows of a block hold a condition; `holds` is bool [rows]."""
    rows, seen = int(holds.sum()), tuple[str, ...]()
    if not rows:
        values = decoded(column.slice(0, _NUM_LOOKED_AT)).unique().drop_null()[:_NUM_SHOWN].to_pylist()
        seen = tuple(f"{value!r:.40}" if isinstance(value, str) else f"{value!s:.40}" for value in values)
    return Held(condition=condition.text, column=condition.column, rows=rows, seen=seen)


def sum_of_held(blocks: Iterable[Sequence[Held]]) -> tuple[Held, ...]:
    """Return the counts of all blocks together. Chunks without blocks have no counts."""
    total: tuple[Held, ...] = ()
    for held in blocks:
        total = _both(total, held) if total and held else tuple(total or held)
    return total


def _both(first: Sequence[Held], second: Sequence[Held]) -> tuple[Held, ...]:
    return tuple(
        Held(
            condition=one.condition,
            column=one.column,
            rows=one.rows + other.rows,
            seen=tuple(dict.fromkeys((*one.seen, *other.seen)))[:_NUM_SHOWN],
        )
        for one, other in zip(first, second, strict=True)
    )


def none_held(name: str, num_rows: int, held: Sequence[Held]) -> InputError:
    """Return the error that no row holds all conditions.

    Args:
        name: the input's name.
        num_rows: the number of its rows.
        held: for each condition, how many rows hold it.
    """
    for condition in held:
        if not condition.rows:
            values = f"has values such as {', '.join(condition.seen)}" if condition.seen else "has no values"
            return InputError(
                f"{name}: none of its {num_rows} rows holds --keep {condition.condition!r}; column "
                f"{condition.column} {values}; correct the condition"
            )
    conditions = " and ".join(f"--keep {condition.condition!r} ({condition.rows} rows)" for condition in held)
    return InputError(f"{name}: none of its {num_rows} rows holds {conditions} together; leave one of them out")

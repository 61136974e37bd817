"""What the timestamps of a block of rows are, and the common form of all blocks of a source.

Blocks are read apart, but the rules about timestamps hold for a whole column: dates have one unit, a column is either
numbers or dates, and numbers may not have been rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contracts.errors import InputError

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, kw_only=True)
class TimeKind:
    """What the timestamps of a block are.

    Attributes:
        unit: s, ms, us or ns if the values tell it, as dates do; None for numbers, whose unit the files do not tell.
        first: the place and value of the block's first timestamp, for messages; None: it has no timestamps.
        has_points: whether a number is written with a point or an exponent, so that all may have been rounded.
        large: the place and value of the first number of 2^53 or more; None: there is none.
    """

    unit: str | None = None
    first: str | None = None
    has_points: bool = False
    large: str | None = None


def common_kind(kinds: Iterable[TimeKind]) -> TimeKind:
    """Return the kind that all blocks can be converted to.

    Raises:
        InputError: some blocks have numbers and others dates, or a number may have been rounded.
    """
    common = TimeKind()
    for kind in kinds:
        if kind.first is None:
            continue
        if common.first is not None and (common.unit is None) != (kind.unit is None):
            raise InputError(f"{kind.first}; the column mixes numbers and dates, write one of the two")
        common = TimeKind(
            unit=None if kind.unit is None else max(common.unit or "s", kind.unit, key=lambda unit: _PER_SECOND[unit]),
            first=common.first or kind.first,
            has_points=common.has_points or kind.has_points,
            large=common.large or kind.large,
        )
        if common.has_points and common.large is not None:
            raise InputError(
                f"{common.large} in a column with points or exponents, exact only below 2^53; "
                "write all of it as int64 or in whole digits"
            )
    return common


def rescaled(times: np.ndarray, kind: TimeKind, common: TimeKind) -> np.ndarray:
    """Return a block's timestamps, int64, in the common unit.

    Raises:
        InputError: a timestamp needs more than 64 bits in that unit.
    """
    if kind.unit is None or common.unit is None or kind.unit == common.unit:
        return times
    factor = _PER_SECOND[common.unit] // _PER_SECOND[kind.unit]
    limit = np.iinfo(np.int64).max // factor
    if len(times) and (times.max() > limit or times.min() < -limit):
        raise InputError(f"{kind.first}: a date of this column needs more than 64 bits of {common.unit}; correct it")
    return times * factor

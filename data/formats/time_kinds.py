"""What the timestamps of a block of rows are, and the common form of all blocks of a source.

Blocks are read apart, but the rules about timestamps hold for a whole column: dates have one unit, a column is either
numbers or dates, and numbers may not have been rounded or be in two units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contracts.errors import InputError

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# A number that is a time of these years in one unit is a time of January or February 1970 in the next finer unit, and
# of the year 5000 or later in the next coarser one. So it tells its unit.
_FIRST_SECOND, _LAST_SECOND = 10**8, 4_102_444_800  # 1973-03-03 and 2100-01-01


@dataclass(frozen=True, kw_only=True)
class TimeKind:
    """What the timestamps of a block are.

    Attributes:
        unit: s, ms, us or ns if the values tell it, as dates do; None for numbers, whose unit the files do not tell.
        first: the place and value of the block's first timestamp, for messages; None: it has no timestamps.
        finest: the place and value of the first date whose fraction of a second needs the unit; None: there is none.
        has_points: whether a number is written with a point or an exponent, so that all may have been rounded.
        large: the place and value of the first number of 2^53 or more; None: there is none.
        told: for each unit in which a number is a time between 1973 and 2100, the unit and the place and value of the
            first such number.
        is_silent: whether a number is no such time in any unit.
        declared: the unit that the user names for numbers; None: none.
    """

    unit: str | None = None
    first: str | None = None
    finest: str | None = None
    has_points: bool = False
    large: str | None = None
    told: tuple[tuple[str, str], ...] = ()
    is_silent: bool = False
    declared: str | None = None

    @property
    def named_unit(self) -> str | None:
        """The unit for the manifest: that of dates, the declared one, or the one that all numbers tell; else None."""
        if self.unit is not None or self.declared is not None:
            return self.unit or self.declared
        return self.told[0][0] if len(self.told) == 1 and not self.is_silent else None


def told_units(times: np.ndarray) -> tuple[dict[str, int], bool]:
    """Return the units that numbers tell, each with the index of the first such number, and whether one tells none.

    Args:
        times: int64, without nulls.
    """
    if not len(times):
        return {}, False
    least, most = int(times.min()), int(times.max())
    found, num_telling = {}, 0
    for unit, factor in PER_SECOND.items():
        first, last = _FIRST_SECOND * factor, _LAST_SECOND * factor
        if first <= least and most <= last:  # the usual case, and the fast one
            return {unit: 0}, False
        if most < first or least > last:
            continue
        tells = (times >= first) & (times <= last)
        if num := int(np.count_nonzero(tells)):
            found[unit] = int(tells.argmax())
            num_telling += num
    return found, num_telling < len(times)


def common_kind(kinds: Iterable[TimeKind]) -> TimeKind:
    """Return the kind that all blocks can be converted to.

    Raises:
        InputError: some blocks have numbers and others dates, a number may have been rounded, or numbers are in two
            units.
    """
    common = TimeKind()
    for kind in kinds:
        if kind.first is None:
            continue
        if common.first is not None and (common.unit is None) != (kind.unit is None):
            raise InputError(f"{kind.first}; the column mixes numbers and dates, write one of the two")
        told = dict((*kind.told, *common.told))  # the earlier block's place wins
        common = TimeKind(
            unit=None if kind.unit is None else max(common.unit or "s", kind.unit, key=lambda unit: PER_SECOND[unit]),
            first=common.first or kind.first,
            has_points=common.has_points or kind.has_points,
            large=common.large or kind.large,
            told=tuple((unit, told[unit]) for unit in PER_SECOND if unit in told),
            is_silent=common.is_silent or kind.is_silent,
            declared=common.declared or kind.declared,
        )
        if common.has_points and common.large is not None:
            raise InputError(
                f"{common.large} in a column with points or exponents, exact only below 2^53; "
                "write all of it as int64 or in whole digits"
            )
        check_units(common)
    return common


def check_units(kind: TimeKind) -> None:
    """Check that numbers tell one unit at most, and none other than the declared one.

    Raises:
        InputError: names the first number of each unit.
    """
    if len(kind.told) > 1:
        if kind.declared in dict(kind.told):  # numbers in the declared unit are right
            raise _undeclared(*next(pair for pair in kind.told if pair[0] != kind.declared), str(kind.declared))
        (unit, place), (other, other_place) = kind.told[:2]
        raise InputError(
            f"{place}, a time in {UNITS[unit]}, but {_without_file(place, other_place)}, a time in {UNITS[other]}; "
            "write all timestamps in one unit"
        )
    if kind.told and kind.declared is not None and kind.told[0][0] != kind.declared:
        unit, place = kind.told[0]
        raise InputError(
            f"{place}, a time in {UNITS[unit]}, but --time-unit says {UNITS[kind.declared]}; "
            f"say --time-unit {unit}, or leave it out"
        )


def _undeclared(unit: str, place: str, declared: str) -> InputError:
    return InputError(
        f"{place}, a time in {UNITS[unit]}, but --time-unit says {UNITS[declared]}, and other numbers are in "
        f"{UNITS[declared]}; write all timestamps in one unit"
    )


def _without_file(place: str, other: str) -> str:
    """Return the second place without the name of the file if it is in the same file as the first."""
    file = place.partition(": column ")[0]
    return other.removeprefix(f"{file}: ")


def rescaled(times: np.ndarray, kind: TimeKind, common: TimeKind) -> np.ndarray:
    """Return a block's timestamps, int64, in the common unit.

    Raises:
        InputError: a timestamp needs more than 64 bits in that unit.
    """
    if kind.unit is None or common.unit is None or kind.unit == common.unit:
        return times
    factor = PER_SECOND[common.unit] // PER_SECOND[kind.unit]
    limit = np.iinfo(np.int64).max // factor
    if len(times) and (times.max() > limit or times.min() < -limit):
        raise InputError(f"{kind.first}: a date of this column needs more than 64 bits of {common.unit}; correct it")
    return times * factor

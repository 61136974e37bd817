"""Says what would surprise a person about the times of interactions: placeholders, mixed units, equal times."""

from __future__ import annotations

from collections.abc import Iterator

from experiments.inspection.facts import DatasetFacts, TimeFacts
from experiments.inspection.time_axis import MAGNITUDES, PER_SECOND
from experiments.inspection.wording import UNIT_NAMES, as_date, in_words, share

_EQUAL_TIMES = 0.2  # share of gaps that are zero
_AT_ONCE = 0.2  # share of users with all interactions at one time
_NO_TIME = (
    "If this stands for rows without a time, leave them out, for example with --keep, or they come {where} in a "
    "history, as if they were its {which} items."
)

Found = Iterator[tuple[str, str]]


def of_times(facts: DatasetFacts) -> Found:
    """Yield what is surprising about times, each with the next move."""
    times = facts.times
    if times is None:
        return
    yield from _of_magnitudes(times)
    yield from _of_far_times(times)
    if times.first == times.last:
        yield (
            f"All timestamps are equal: {as_date(times.first, times.unit)}.",
            "The order of a history is then the order of the rows; give the column with the real times.",
        )
        return
    equal = times.num_equal / times.num_gaps if times.num_gaps else 0.0
    if equal >= _EQUAL_TIMES:
        yield (
            f"{share(equal)} of a user's consecutive interactions have equal timestamps.",
            "Their order is that of the rows, so a next item may be none; use finer times if there are any.",
        )
    at_once = times.num_users_at_once / times.num_users_with_gaps if times.num_users_with_gaps else 0.0
    if at_once >= _AT_ONCE:
        yield (
            f"{share(at_once)} of the users with several interactions have all of them at one time.",
            "Their histories have no order, so they teach no sequence; find out what the time stands for.",
        )


def _of_magnitudes(times: TimeFacts) -> Found:
    counted = [(unit, times.by_magnitude[unit]) for unit in MAGNITUDES]
    fitting = [(unit, count) for unit, count in counted if unit in PER_SECOND and count]
    if len(fitting) > 1:
        listed = " and ".join(f"{count:,} {_are(count)} dates in {UNIT_NAMES[unit]}" for unit, count in fitting)
        yield (
            f"The timestamps are in several units: by their size, {listed}.",
            "Convert all rows to one unit, or the order of interactions and the split are wrong.",
        )
    other = times.by_magnitude["other"]
    if fitting and other:  # no plausible timestamp at all means that the numbers count something else
        unit, most = max(fitting, key=lambda pair: pair[1])
        yield (
            f"{other:,} {_timestamps(other)} not between 1980 and 2100, and {most:,} {_are(most)}, in "
            f"{UNIT_NAMES[unit]}.",
            f"Look for placeholders such as 0; the range is {times.first:,} to {times.last:,}. Leave such rows out, "
            "for example with --keep, or they come first or last in a history.",
        )


def _of_far_times(times: TimeFacts) -> Found:
    for one in times.far:
        is_late = one.value > one.nearest
        where, which = ("last", "newest") if is_late else ("first", "oldest")
        gap = in_words(abs(one.value - one.nearest), times.unit)
        yield (
            f"{one.count:,} {_timestamps(one.count)} {as_date(one.value, times.unit)} ({one.value}), {gap} "
            f"{'after' if is_late else 'before'} all other dates.",
            _NO_TIME.format(where=where, which=which),
        )


def _timestamps(count: int) -> str:
    return "timestamp is" if count == 1 else "timestamps are"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"

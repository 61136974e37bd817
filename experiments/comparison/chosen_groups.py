"""Chooses the targets and ranks of a comparison by groups of items, if the files of ranks have such groups."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.errors import InputError
from evaluation.saved_ranks import ChosenRanks, SavedRanks

_AMONG = {
    "domain": "the items of its own dataset",
    "training": "the items of its own group (warm, cold, never trained)",
}
_NO_GROUPS = (
    "their dataset has no such groups, or the ranks are of an earlier version; evaluate the run again with "
    "jobs/evaluate.py"
)


def chosen_ranks(group: str | None, among: str, files: Sequence[SavedRanks]) -> ChosenRanks:
    """Return what to read from every file.

    Args:
        group: the group of the targets, of any grouping; None: all targets.
        among: the grouping within which targets are ranked; "all": among all items.
        files: the files to compare, at least one.

    Raises:
        InputError: a file has no such group or grouping.
    """
    grouping = None
    for file in files:
        groups = file.facts.groups
        if among != "all" and among not in groups:
            raise InputError(f"--among {among}: {file.path} has no ranks among {_AMONG[among]}: {_NO_GROUPS}")
        if group is not None:
            known = [name for names in groups.values() for name in names]
            if not known:
                raise InputError(f"--targets {group}: {file.path} has no groups of targets: {_NO_GROUPS}")
            if group not in known:
                raise InputError(f"--targets {group}: {file.path} has no such group; name one of {', '.join(known)}")
            owners = [name for name, names in groups.items() if group in names]
            if len(owners) > 1:
                raise InputError(
                    f"--targets {group}: {file.path} has a dataset of this name and a group of items by training; "
                    "rename the dataset's folder and evaluate the run again with jobs/evaluate.py"
                )
            grouping = owners[0]
    return ChosenRanks(grouping=grouping, group=group, among=None if among == "all" else among)


def choice_in_words(chosen: ChosenRanks) -> str:
    """Return which targets were compared, and among which items they were ranked."""
    which = "All targets" if chosen.group is None else f"Only targets of the group {chosen.group!r}"
    items = "all items" if chosen.among is None else _AMONG[chosen.among]
    return f"{which}; each is ranked among {items}"

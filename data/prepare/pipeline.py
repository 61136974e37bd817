"""Makes the content of a dataset from source files: chooses the reader, runs the steps, counts what was dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.formats.interaction_table import timestamp_unit
from data.formats.recbole import read_recbole
from data.formats.table import read_table
from data.formats.unisrec import read_unisrec
from data.prepare import interactions as steps
from data.prepare.feature_files import detect_features
from data.prepare.features import read_features
from data.prepare.split import SplitRule
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from data.writing import DatasetContent, Sequences


@dataclass(frozen=True, kw_only=True)
class RawOptions:
    """Options for turning raw interactions into sequences.

    Attributes:
        min_user_interactions: fewest interactions of a user in the k-core that is kept; 1: no limit.
        min_item_interactions: fewest interactions of an item in it; 1: no limit.
        max_history: number of most recent interactions that are kept of each user, before the split; None: all.
        split: the rule for training, validation and test.
        user_column: name of the column of users in a table.
        item_column: name of the column of items in a table.
        timestamp_column: name of the column of timestamps in a table.
    """

    min_user_interactions: int = 5
    min_item_interactions: int = 5
    max_history: int | None = None
    split: SplitRule = field(default_factory=SplitRule)
    user_column: str = "user"
    item_column: str = "item"
    timestamp_column: str = "timestamp"

    def check(self) -> None:
        """Raise InputError if a number is below 1 or the options of the split contradict each other."""
        for name in ("min_user_interactions", "min_item_interactions", "max_history"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        self.split.check()


# The readers of raw interactions; each returns the table that `formats.interaction_table` describes.
RAW_READERS: dict[str, Callable[[str, RawOptions], pa.Table]] = {
    "recbole": lambda path, _: read_recbole(path),
    "table": lambda path, options: read_table(path, options.user_column, options.item_column, options.timestamp_column),
}


def unisrec_content(path: str, features: Mapping[str, str], ids_files: Mapping[str, str]) -> DatasetContent:
    """Return the content of a UniSRec folder, with its own feature files unless `features` names others.

    Raises:
        InputError: see `formats.unisrec` and `features`.
    """
    data = read_unisrec(path)
    files = dict(features) or detect_features(data.folder, data.name)
    # Without an index file, items are numbered by the source only if their tokens are 0..max.
    rows_are_items = data.source["numbering_of_items"] != "order of first appearance"
    aligned, unknown = read_features(files, ids_files, data.item_source_ids, rows_are_items)
    return DatasetContent(
        sequences=data.sequences,
        user_source_ids=data.user_source_ids,
        item_source_ids=data.item_source_ids,
        item_texts=data.item_texts,
        features=aligned,
        split={"method": "leave-one-out", "given_by": "the source's files"},
        source=data.source | {"path": path, "features": files},
        dropped=data.dropped | unknown,
    )


def raw_content(
    kind: str, path: str, options: RawOptions, features: Mapping[str, str], ids_files: Mapping[str, str]
) -> DatasetContent:
    """Return the content of raw interactions.

    These are the steps. Rows with a null or empty value, and exact duplicates, are removed. The k-core is kept. Users
    and items are numbered in order of first appearance. Each user's interactions are sorted by time; ties keep their
    input order. The most recent are kept. Sequences are split.

    Raises:
        InputError: see `formats.recbole`, `formats.table` and `features`; or nothing is left, or options contradict
            each other.
    """
    options.check()
    table = RAW_READERS[kind](path, options)
    sequences, user_ids, item_ids, split, dropped = _sequences(table, path, options)
    aligned, unknown = read_features(features, ids_files, item_ids, rows_are_items=False)
    unit = timestamp_unit(table)
    parameters = {option.name: getattr(options, option.name) for option in fields(options) if option.name != "split"}
    if kind != "table":
        parameters = {name: value for name, value in parameters.items() if not name.endswith("_column")}
    return DatasetContent(
        sequences=sequences,
        user_source_ids=user_ids,
        item_source_ids=item_ids,
        features=aligned,
        split=split,
        source={"format": kind, "path": path, "features": dict(features)}
        | parameters
        | ({"timestamp_unit": unit} if unit else {}),
        dropped=dropped | unknown,
    )


def _sequences(
    table: pa.Table, path: str, options: RawOptions
) -> tuple[Sequences, pa.Array, pa.Array, dict[str, Any], dict[str, int]]:
    users, items, times, user_ids, item_ids, num_null = steps.interaction_codes(table)
    if not len(users):
        raise InputError(
            f"{path}: none of its {table.num_rows} rows has a user, an item and a timestamp; restore the file"
        )
    dropped = {"rows_with_null": num_null}

    def keep(mask: np.ndarray) -> int:
        nonlocal users, items, times
        users, items, times = users[mask], items[mask], times[mask]
        return int((~mask).sum())

    dropped["duplicates"] = keep(steps.first_of_duplicates(users, items, times))
    minimums = options.min_user_interactions, options.min_item_interactions
    before = len(np.unique(users)), len(np.unique(items))
    dropped["k_core_interactions"] = keep(steps.k_core(users, items, *minimums))
    if not len(users):
        raise InputError(
            f"{path}: none of its {table.num_rows} rows is left after the {minimums[0]}/{minimums[1]}-core; "
            "lower --min-user-interactions and --min-item-interactions"
        )
    users, user_ids = steps.renumber(users, user_ids)
    items, item_ids = steps.renumber(items, item_ids)
    dropped |= {"k_core_users": before[0] - len(user_ids), "k_core_items": before[1] - len(item_ids)}

    order, offsets = steps.ordered_by_time(users, times, len(user_ids))
    if options.max_history is not None:
        recent, offsets = steps.most_recent(offsets, options.max_history)
        order = order[recent]
    dropped["truncated_interactions"] = len(users) - len(order)
    items, times = items[order], times[order]
    train_end, valid_end, split = options.split.apply(offsets, times)
    return (
        Sequences(offsets=offsets, items=items, timestamps=times, train_end=train_end, valid_end=valid_end),
        user_ids,
        item_ids,
        split,
        dropped,
    )


_RAW_OPTIONS = {field.name for field in (*fields(RawOptions), *fields(SplitRule)) if field.name != "method"}
_COLUMN_OPTIONS = {"user_column", "item_column", "timestamp_column"}
_SYNTHETIC_OPTIONS = {"num_users", "num_items", "seed", "shared_interests"}
_ALLOWED = {
    "unisrec": set[str](),
    **dict.fromkeys(RAW_READERS, _RAW_OPTIONS - _COLUMN_OPTIONS),
    "table": _RAW_OPTIONS,
    "synthetic": _SYNTHETIC_OPTIONS,
}
FORMATS = tuple(_ALLOWED)


def content_of(
    kind: str, path: str | None, features: Mapping[str, str], ids_files: Mapping[str, str], options: Mapping[str, Any]
) -> DatasetContent:
    """Return the content for the options of a command line.

    Args:
        kind: the format.
        path: the input, or None.
        features: the feature file of each modality.
        ids_files: the ids file of each modality that has one.
        options: further options, only those that were given.

    Raises:
        InputError: the format does not take an option, the input is missing, or its reader refuses it.
    """
    assert kind in _ALLOWED, kind
    for name in options:
        if name not in _ALLOWED[kind]:
            takers = ", ".join(other for other, allowed in _ALLOWED.items() if name in allowed)
            raise InputError(
                f"--{name.replace('_', '-')}: is not an option of --format {kind}, only of {takers}; leave it out"
            )
    if kind == "synthetic":
        if path is not None or features or ids_files:
            raise InputError("--format synthetic makes its own data; leave --input and --features out")
        return synthetic_content(SyntheticSpec(**options))
    if path is None:
        raise InputError(f"--format {kind}: needs --input")
    if kind == "unisrec":
        return unisrec_content(path, features, ids_files)
    return raw_content(kind, path, _raw_options(options), features, ids_files)


def _raw_options(options: Mapping[str, Any]) -> RawOptions:
    rule = {name: value for name, value in options.items() if name.startswith(("valid_", "test_"))}
    method = options.get("split", "leave-one-out")
    if rule and method != "global-time":
        raise InputError(f"--{min(rule).replace('_', '-')}: belongs to --split global-time; add it or leave this out")
    own = {name: value for name, value in options.items() if name not in rule and name != "split"}
    return RawOptions(**own, split=SplitRule(method=method, **rule))

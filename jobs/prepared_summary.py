"""What `jobs/prepare_data.py` prints about the dataset that it wrote."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from contracts.text_table import text_table
from data.dataset import Dataset
from data.formats.time_kinds import UNITS
from data.ragged import ragged_indices

_BLOCK = 1 << 22
_USERS = 1 << 20


def summary(dataset: Dataset) -> Iterator[str]:
    """Yield what a person should know: what was dropped, counts, the split, and what the split leaves empty."""
    dropped = [(reason, f"{count:,}") for reason, count in dataset.manifest["dropped"].items()]
    if dropped:
        yield text_table(dropped, ["dropped", "count"], right=[1])
    facts, items = dataset.manifest["modalities"], f"{dataset.num_items:,}"
    yield from _split(dataset)
    yield from _cold(dataset)
    if (texts := dataset.item_texts()) is not None:
        yield f"items with a text: {len(texts) - texts.null_count:,} of {items}"
    if dataset.manifest["dropped"].get("truncated_interactions") and (unused := _items_without_rows(dataset)):
        yield f"items without an interaction after --max-history: {unused:,}; they stay in the catalogue"
    modalities = ", ".join(f"{name} ({facts[name]['num_present']:,} of {items})" for name in facts) or "none"
    counts = f"{dataset.num_users:,} users, {items} items, {dataset.num_interactions:,} interactions"
    yield f"wrote dataset {dataset.path}: {counts}, modalities {modalities}"
    if (span := _time_span(dataset)) is not None:
        yield span


def _split(dataset: Dataset) -> Iterator[str]:
    ends = {
        "training": int(dataset.train_end.sum()),
        "validation": int((dataset.valid_end - dataset.train_end).sum()),
    }
    ends["test"] = dataset.num_interactions - sum(ends.values())
    yield "interactions for " + ", ".join(f"{part}: {count:,}" for part, count in ends.items())
    rule = dataset.manifest["split"]
    if rule.get("method") == "given":
        why = "the split is that of the files, and no row that was kept is for this part; --split draws another"
    elif rule.get("method") == "global-time":
        why = "check --valid-from and --test-from, which have the unit of the data"
    elif "given_by" in rule:
        why = "the split is that of the files"
    else:
        why = "leave-one-out needs users with 3 interactions, also after --max-history"
    for part in ("validation", "test"):
        if not ends[part]:
            yield f"note: nothing is for {part}; {why}"
    if num := rule.get("users_not_in_order_of_time"):
        yield (
            "note: the dataset has no timestamps, because the split of the files is not in order of time for "
            f"{num:,} of {dataset.num_users:,} users; --split leave-one-out splits by time and keeps them"
        )


def _cold(dataset: Dataset) -> Iterator[str]:
    """Yield how many items are held out of training, and how many targets they are."""
    cold = dataset.cold_items()
    if cold is None:
        return
    targets = {"validation": 0, "test": 0}
    for start in range(0, dataset.num_users, _USERS):
        users = slice(start, min(start + _USERS, dataset.num_users))
        begins, ends = dataset.offsets[users], dataset.offsets[users.start + 1 : users.stop + 1]
        valid_ends = begins + dataset.valid_end[users]
        for part, first, last in (
            ("validation", begins + dataset.train_end[users], valid_ends),
            ("test", valid_ends, ends),
        ):
            items = dataset.items[ragged_indices(first, last - first)]
            targets[part] += int(np.count_nonzero(cold[items]))
    seed = dataset.manifest["split"].get("cold_items", {}).get("seed")
    stated = "" if seed is None else f", chosen with seed {seed}"
    yield (
        f"cold items, which are in no training sequence: {np.count_nonzero(cold):,} of {dataset.num_items:,}{stated}; "
        f"their interactions for validation: {targets['validation']:,}, test: {targets['test']:,}"
    )


def _items_without_rows(dataset: Dataset) -> int:
    has_row = np.zeros(dataset.num_items, bool)
    for start in range(0, dataset.num_interactions, _BLOCK):
        has_row[dataset.items[start : start + _BLOCK]] = True
    return int(np.count_nonzero(~has_row))


def _time_span(dataset: Dataset) -> str | None:
    """Return a line with the unit of a dataset's timestamps and their range, or None if the unit is not known."""
    unit = dataset.manifest["source"].get("timestamp_unit")
    if unit is None or dataset.timestamps is None:
        return None
    span = np.array([dataset.timestamps.min(), dataset.timestamps.max()])
    first, last = span.astype(f"datetime64[{unit}]").astype("datetime64[D]")
    return f"timestamps are in {UNITS[unit]}: {first} to {last}"

"""The slow twin of data.prepare.engine: the same steps over whole columns in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.formats.held import Held, none_held, sum_of_held
from data.formats.source import InteractionSource, all_blocks
from data.formats.time_kinds import common_kind, rescaled
from data.prepare.cold import ColdRule
from data.prepare.engine.plan import Rules
from data.prepare.split import SplitRule, global_time, leave_one_out
from data.ragged import offsets_of, ragged_indices
from data.writing import Sequences

_CHUNK_BYTES = 256 << 20
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class CollectedRows:
    """All rows of a source.

    Attributes:
        rows: columns as in `source.Block`, with all timestamps in one unit.
        timestamp_unit: s, ms, us or ns; None: the source does not tell, or has no timestamps.
        num_read: the number of rows of the files.
        dropped: for each reason, the number of rows that were left out.
        held: for each condition of `--keep`, how many rows hold it.
    """

    rows: pa.Table
    timestamp_unit: str | None
    num_read: int
    dropped: Mapping[str, int]
    held: tuple[Held, ...]


def collected_rows(source: InteractionSource) -> CollectedRows:
    """Read a source.

    Raises:
        InputError: a file cannot be read, or the blocks' timestamps contradict each other.
    """
    blocks = list(all_blocks(source, source.chunks(_CHUNK_BYTES), _BLOCK_BYTES))
    kinds = [block.time_kind for block in blocks if block.time_kind is not None]
    common = common_kind(kinds)
    tables = []
    for block in blocks:
        table = block.rows
        if block.time_kind is not None:
            place = table.schema.get_field_index("timestamp")
            times = rescaled(table.column(place).to_numpy(), block.time_kind, common)
            table = table.set_column(place, "timestamp", pa.array(times, pa.int64()))
        tables.append(table)
    dropped: Counter[str] = Counter({"rows_with_null": 0})
    for block in blocks:
        dropped.update(block.dropped)
    return CollectedRows(
        rows=pa.concat_tables(tables) if tables else _nothing(),
        timestamp_unit=common.named_unit if kinds else None,
        num_read=sum(block.num_read for block in blocks),
        dropped=dict(dropped),
        held=sum_of_held(block.held for block in blocks),
    )


def _nothing() -> pa.Table:
    kinds = {"user": pa.large_string(), "item": pa.large_string(), "timestamp": pa.int64()}
    return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})


def interaction_codes(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, pa.Array, pa.Array]:
    """Number users and items in order of first appearance.

    Args:
        rows: columns user, item and, if there are any, timestamp, without nulls.

    Returns:
        Users, items and timestamps (without timestamps: zeros), int64 [E] each; the source ids of users and of items
        by their number.
    """
    users, user_ids = _codes(rows.column("user"))
    items, item_ids = _codes(rows.column("item"))
    has_times = "timestamp" in rows.column_names
    times = rows.column("timestamp").to_numpy() if has_times else np.zeros(len(users), np.int64)
    return users, items, times, user_ids, item_ids


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    encoded = column.dictionary_encode().unify_dictionaries()
    if encoded.num_chunks == 0:
        return np.zeros(0, np.int64), pa.array([], pa.large_string())
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    return codes, encoded.chunk(0).dictionary


def first_of_duplicates(users: np.ndarray, items: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Return a mask, bool [E], that keeps the first in input order of equal (user, item, timestamp)."""
    order = np.lexsort((timestamps, items, users))  # stable: equal triples stay in input order
    keep = np.ones(len(users), bool)
    same = np.ones(max(len(users) - 1, 0), bool)
    for column in (users, items, timestamps):
        same &= column[order[1:]] == column[order[:-1]]
    keep[order[1:][same]] = False
    return keep


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Return a mask, bool [E], of the largest set in which users have >= min_user and items >= min_item interactions.

    Users and items below the minimum are removed until nothing changes. The result does not depend on the order of
    removal. Repeated interactions of a user with an item count separately.
    """
    kept = np.arange(len(users))
    while True:
        enough = np.ones(len(kept), bool)
        for codes, minimum in ((users[kept], min_user), (items[kept], min_item)):
            enough &= np.bincount(codes)[codes] >= minimum if len(codes) else True
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(users), bool)
    mask[kept] = True
    return mask


def renumber(codes: np.ndarray, source_ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Renumber the codes that are still in use without gaps, in the same order; return them and their source ids."""
    used = np.bincount(codes, minlength=len(source_ids)) > 0
    return (np.cumsum(used) - 1)[codes], source_ids.filter(pa.array(used))


def ordered_by_time(users: np.ndarray, timestamps: np.ndarray, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Group interactions by user, oldest first; interactions at the same time keep their input order.

    Returns:
        The order as indices of interactions, int64 [E], and the offsets of users in it, int64 [U+1].
    """
    order = np.lexsort((timestamps, users))
    return order, offsets_of(np.bincount(users, minlength=num_users))


def most_recent(offsets: np.ndarray, max_history: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of each user's last `max_history` interactions, and the offsets of users in them."""
    lengths = np.minimum(np.diff(offsets), max_history)
    return ragged_indices(offsets[1:] - lengths, lengths), offsets_of(lengths)


def prepared_in_memory(
    source: InteractionSource, rules: Rules
) -> tuple[Sequences, pa.Array, pa.Array, dict[str, Any], dict[str, int]]:
    """Return sequences, source ids of users and of items, the split, and what was dropped."""
    read, path = collected_rows(source), source.name
    has_times = "timestamp" in read.rows.column_names
    users, items, times, user_ids, item_ids = interaction_codes(read.rows)
    dropped = dict(read.dropped)
    if not len(users):
        whole = "a user, an item and a timestamp" if has_times else "a user and an item"
        if read.num_read and dropped.get("rows_not_kept") == read.num_read:
            raise none_held(path, read.num_read, read.held)
        raise InputError(f"{path}: none of its {read.num_read} rows has {whole}; restore the file")

    def keep(mask: np.ndarray) -> int:
        nonlocal users, items, times
        users, items, times = users[mask], items[mask], times[mask]
        return int((~mask).sum())

    if has_times:  # without times, a repeated item is no duplicate
        dropped["duplicates"] = keep(first_of_duplicates(users, items, times))
    minimums = rules.min_user_interactions, rules.min_item_interactions
    before = len(np.unique(users)), len(np.unique(items))
    dropped["k_core_interactions"] = keep(k_core(users, items, *minimums))
    if not len(users):
        raise InputError(
            f"{path}: none of its {read.num_read} rows is left after the {minimums[0]}/{minimums[1]}-core; "
            "lower --min-user-interactions and --min-item-interactions"
        )
    users, user_ids = renumber(users, user_ids)
    items, item_ids = renumber(items, item_ids)
    dropped |= {"k_core_users": before[0] - len(user_ids), "k_core_items": before[1] - len(item_ids)}

    order, offsets = ordered_by_time(users, times, len(user_ids))
    if rules.max_history is not None:
        recent, offsets = most_recent(offsets, rules.max_history)
        order = order[recent]
    dropped["truncated_interactions"] = len(users) - len(order)
    items, timestamps = items[order], times[order] if has_times else None
    cold = cold_in_memory(item_ids.to_pylist(), rules.cold) if rules.cold is not None else None
    train_end, valid_end, split = split_in_memory(rules.split, offsets, timestamps)
    whole = Sequences(offsets=offsets, items=items, timestamps=timestamps, train_end=train_end, valid_end=valid_end)
    if rules.cold is None or cold is None:
        return whole, user_ids, item_ids, split, dropped
    left, users_left, counts = _without(whole, cold)
    if not left.train_end.any():
        raise rules.cold.nothing_left(np.array(cold))
    return left, user_ids.filter(pa.array(users_left)), item_ids, split | _held_out(rules.cold, cold), dropped | counts


def cold_in_memory(ids: list[str], rule: ColdRule) -> list[bool]:
    """Return which items are cold, by whole numbers of Python."""

    def mixed(value: int) -> int:
        value = (value + 0x9E3779B97F4A7C15) % 2**64
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    key = mixed(rule.seed)
    hashes = [
        mixed(key ^ sum(mixed(key ^ (place << 8 | byte)) for place, byte in enumerate(name.encode(), 1)) % 2**64)
        for name in ids
    ]
    count = round(rule.share * len(ids))
    if not 0 < count < len(ids):
        raise InputError(
            f"--cold-item-share {rule.share}: of {len(ids):,} items these are {count:,}; "
            f"{'lower' if count else 'raise'} it so that some items are held out and some are not"
        )
    chosen = set(sorted(range(len(ids)), key=lambda item: hashes[item])[:count])
    return [item in chosen for item in range(len(ids))]


def _held_out(rule: ColdRule, cold: list[bool]) -> dict[str, Any]:
    return {"cold_items": {"share": rule.share, "seed": rule.seed, "count": sum(cold)}}


def _without(data: Sequences, cold: list[bool]) -> tuple[Sequences, list[bool], dict[str, int]]:
    """Return sequences without training interactions of cold items, of which users something is left, and counts."""
    rows: list[int] = []
    lengths, train_end, valid_end, left = [], [], [], []
    for user, (start, stop) in enumerate(pairwise(data.offsets.tolist())):
        train, valid = int(data.train_end[user]), int(data.valid_end[user])
        kept = [row for row in range(start, stop) if row >= start + train or not cold[data.items[row]]]
        left.append(bool(kept))
        if kept:
            fewer = stop - start - len(kept)
            lengths.append(len(kept))
            train_end.append(train - fewer)
            valid_end.append(valid - fewer)
            rows += kept
    found = Sequences(
        offsets=offsets_of(np.array(lengths, np.int64)),
        items=data.items[rows],
        timestamps=None if data.timestamps is None else data.timestamps[rows],
        train_end=np.array(train_end, np.int64),
        valid_end=np.array(valid_end, np.int64),
    )
    counts = {
        "training_interactions_of_cold_items": len(data.items) - len(rows),
        "users_of_cold_items_only": left.count(False),
    }
    return found, left, counts


def split_in_memory(
    rule: SplitRule, offsets: np.ndarray, timestamps: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return train_end int64 [U], valid_end int64 [U], and the description of the split for the manifest."""
    rule.check()
    if rule.method == "leave-one-out":
        train_end, valid_end = leave_one_out(offsets)
        return train_end, valid_end, {"method": rule.method}
    if timestamps is None:
        raise InputError("split global-time: the data has no timestamps; use --split leave-one-out")
    valid_from, test_from = rule.valid_from, rule.test_from
    if valid_from is None or test_from is None:
        num, ordered = len(timestamps), np.sort(timestamps)
        ranks = [min(int(np.floor(fraction * num)), num) for fraction in (rule.valid_fraction, rule.test_fraction)]
        valid_from, test_from = (int(ordered[-1]) + 1 if rank == num else int(ordered[rank]) for rank in ranks)
    train_end, valid_end = global_time(offsets, timestamps, valid_from, test_from)
    if not train_end.any():
        raise InputError(
            f"split global-time: no interaction is before {valid_from}, so there are none to train on; use a later "
            f"--valid-from, as timestamps go from {timestamps.min()} to {timestamps.max()}"
        )
    described = {"method": rule.method, "valid_from": valid_from, "test_from": test_from}
    if rule.valid_from is None:
        described |= {"valid_fraction": rule.valid_fraction, "test_fraction": rule.test_fraction}
    return train_end, valid_end, described

"""The outline of a preparation: from raw interactions in files to sequences, ids and counts, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from contracts.errors import InputError
from data.formats.held import Held, none_held, sum_of_held
from data.formats.source import Chunk, InteractionSource
from data.prepare.cold import COLD_ROWS, COLD_USERS
from data.prepare.engine import core, encode, final, histories, names, numbering
from data.prepare.engine.held_back import held_back
from data.prepare.engine.plan import KINDS, KnownIds, Rules, Segment, Sizes, Table
from data.prepare.engine.result import Prepared, check_training, num_dropped, stored_sequences
from data.prepare.engine.work import Executor, Work, load


def prepare(
    source: InteractionSource,
    chunks: Sequence[Chunk],
    rules: Rules,
    *,
    work: Work,
    executor: Executor,
    sizes: Sizes,
    known: KnownIds | None = None,
) -> Prepared:
    """Run the stages that are not done. `work.opened` must have been entered.

    Raises:
        InputError: the source refuses its files, nothing is left, the split leaves nothing to train on, or a known user
            has no rows.
    """
    rules.split.check()
    table, read = _read(source, chunks, work=work, executor=executor, sizes=sizes, known=known)
    for kind in KINDS:
        work.run(f"unify/{kind}", partial(numbering.unify_bucket, table, kind), table.num_buckets, executor)
        work.run(f"number/{kind}", partial(numbering.number_ids, table, kind), 1, executor)
    rows = load(work.task("number/users", 0), "rows")
    ranges = histories.Ranges(
        table=table,
        bounds=histories.divide_users(rows, sizes.range_rows),
        time_kind=histories.kind_of_times(table.segments) if table.has_times else None,
    )
    work.run(histories.SPREAD, partial(histories.spread_segment, ranges), len(table.segments), executor)
    work.drop(encode.STAGE)
    if not table.has_times and not table.has_splits and rules.split.method == "global-time":
        raise InputError("split global-time: the data has no timestamps; use --split leave-one-out")
    sorted_ = work.run(histories.SORT, partial(histories.sort_range, ranges), ranges.count, executor)
    work.drop(histories.SPREAD)
    core.find_core(ranges, rules, executor)
    names.write_ranks(table, "items", load(work.task(core.CORE, 0), "live"))
    finishing = final.Finishing(ranges=ranges, rules=rules)
    finished = work.run(final.FINAL, partial(final.finish_range, finishing), ranges.count, executor)
    work.drop(histories.SORT)
    final.check_users(ranges, finished, source.name)
    if not sum(facts["rows"] for facts in finished):
        raise InputError(
            f"{source.name}: none of its {read.num_rows} rows is left after the "
            f"{rules.min_user_interactions}/{rules.min_item_interactions}-core; "
            "lower --min-user-interactions and --min-item-interactions"
        )
    finishing, split = _with_split(finishing, finished)
    name = partial(names.named, table, group_rows=sizes.group_rows, executor=executor)
    if rules.cold is not None:
        final.write_cold(finishing, name("items").groups())
    divided = work.run(final.SPLIT, partial(final.split_range, finishing), ranges.count, executor)
    check_training(finishing)
    live = np.concatenate([final.live_users(finishing, number) for number in range(ranges.count)])
    names.write_ranks(table, "users", live)
    counts = {
        **({"duplicates": sum(facts["duplicates"] for facts in sorted_)} if table.has_times else {}),
        "k_core_interactions": sum(facts["core_rows"] for facts in finished),
        **{f"k_core_{kind}": num_dropped(table, kind) for kind in KINDS},
        "truncated_interactions": sum(facts["truncated"] for facts in finished),
    }
    held_out = None
    if rules.cold is not None:
        held_out = load(work.task(final.COLD, 0), "cold")
        split |= rules.cold.described(held_out)
        counts[COLD_ROWS] = sum(facts["cold_rows"] for facts in divided)
        counts[COLD_USERS] = sum(facts["empty_users"] for facts in divided)
        counts["k_core_users"] -= counts[COLD_USERS]  # which counts all users that are not left
    return Prepared(
        sequences=stored_sequences(finishing, with_times=not split.get(final.NOT_BY_TIME)),
        user_ids=name("users"),
        item_ids=name("items"),
        split=split,
        dropped=read.dropped | counts,
        held_back=held_back(ranges, name) if rules.hold_back else None,
        time_kind=ranges.time_kind,
        cold=held_out,
    )


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What was counted when the input was read: all rows, and for each reason those that were left out."""

    num_rows: int
    dropped: dict[str, int]


def _read(
    source: InteractionSource,
    chunks: Sequence[Chunk],
    *,
    work: Work,
    executor: Executor,
    sizes: Sizes,
    known: KnownIds | None,
) -> tuple[Table, _Read]:
    num_buckets = max(1, sum(chunk.num_bytes for chunk in chunks) // sizes.bucket_bytes)
    reading = encode.Reading(work=work, source=source, chunks=chunks, sizes=sizes, num_buckets=num_buckets)
    facts = work.run(encode.STAGE, partial(encode.read_chunk, reading), len(chunks), executor)
    segments: list[Segment] = []
    if known is not None:
        segments.append(encode.write_known(known, work.path / "known", num_buckets))
    for number in range(len(chunks)):
        segments += encode.segments_of(work, number)
    dropped = {"rows_with_null": 0}
    for of_chunk in facts:
        for reason, count in of_chunk["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    num_rows = sum(of_chunk["num_read"] for of_chunk in facts)
    has_times = all(of_chunk["has_times"] for of_chunk in facts)
    if not sum(segment.rows for segment in segments):
        whole = "a user, an item and a timestamp" if has_times else "a user and an item"
        if num_rows and dropped.get("rows_not_kept") == num_rows:
            held = sum_of_held([Held(**each) for each in of_chunk["held"]] for of_chunk in facts)
            raise none_held(source.name, num_rows, held)
        raise InputError(f"{source.name}: none of its {num_rows} rows has {whole}; restore the file")
    filled = [of_chunk for of_chunk in facts if of_chunk["segments"]]
    table = Table(
        work=work,
        segments=segments,
        num_buckets=num_buckets,
        has_times=has_times,
        has_splits=all(of_chunk["has_splits"] for of_chunk in filled),
        num_known={kind: len(getattr(known, kind)) if known is not None else 0 for kind in KINDS},
    )
    return table, _Read(num_rows=num_rows, dropped=dropped)


def _with_split(
    finishing: final.Finishing, finished: Sequence[dict[str, Any]]
) -> tuple[final.Finishing, dict[str, Any]]:
    """Return the settings of the split, and its description for the manifest.

    Args:
        finishing: the settings so far.
        finished: the facts of the tasks of `final.finish_range`.
    """
    ranges, rule = finishing.ranges, finishing.rules.split
    if ranges.table.has_splits:
        split: dict[str, Any] = {"method": "given", "given_by": "the source's files"}
        if ranges.table.has_times:
            split[final.NOT_BY_TIME] = sum(of_range[final.NOT_BY_TIME] for of_range in finished)
        return finishing, split
    if rule.method == "leave-one-out":
        return finishing, {"method": rule.method}
    moments = final.moments_of(ranges.table.work, ranges.count, rule)
    described = {**asdict(rule), "valid_from": moments[0], "test_from": moments[1]}
    if rule.valid_from is not None:  # the shares of interactions decided nothing
        del described["valid_fraction"], described["test_fraction"]
    return replace(finishing, moments=moments), described

"""Puts what a source tells about items into item order. N items."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.source import InteractionSource


def described_items(
    source: InteractionSource, item_source_ids: pa.Array
) -> tuple[pa.Array | None, pa.Table | None, dict[str, int]]:
    """Return the texts and the further columns of items.

    Args:
        source: the source.
        item_source_ids: strings [N].

    Returns:
        Texts, large_string [N] with nulls, or None; further columns [N], or None; and the number of described items
        that have no interactions.

    Raises:
        InputError: a file of items cannot be read, or describes none of the items.
    """
    table = source.item_columns()
    if table is None:
        return None, None, {}
    rows = pc.index_in(item_source_ids.cast(pa.large_string()), value_set=table.column("item").combine_chunks())
    num_known = len(rows) - rows.null_count
    if not num_known:
        first = table.column("item")[0].as_py() if table.num_rows else None
        raise InputError(
            f"--items: describes none of the {len(rows)} items (its first is {first!r}, an item is "
            f"{item_source_ids[0].as_py()!r}); name the column of ids with --item-id-column"
        )
    aligned = table.drop_columns(["item"]).take(rows)
    texts = aligned.column("text").combine_chunks() if "text" in aligned.column_names else None
    further = aligned.drop_columns(["text"]) if texts is not None else aligned
    unknown = table.num_rows - num_known
    return texts, further if further.num_columns else None, {"described_items_without_interactions": unknown}

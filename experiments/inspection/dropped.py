"""Says in words what preparation left out and why, from the counts in a dataset's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.inspection.facts import Dropped
from experiments.inspection.stated import stated

# `{...}` is an option of preparation, which the manifest records in `source`.
_WORDS = {
    "rows_with_null": "rows without a user, an item or a timestamp",
    "rows_not_kept": "rows that the conditions of --keep left out",
    "duplicates": "rows that repeat user, item and timestamp of an earlier row",
    "k_core_interactions": "interactions of users with fewer than {min_user_interactions} interactions, or of items "
    "with fewer than {min_item_interactions} (k-core)",
    "k_core_users": "users with fewer than {min_user_interactions} interactions (k-core)",
    "k_core_items": "items with fewer than {min_item_interactions} interactions (k-core)",
    "truncated_interactions": "interactions older than a user's latest {max_history} (--max-history)",
    "training_interactions_of_cold_items": "interactions of items that are held out of training (--cold-item-share)",
    "users_of_cold_items_only": "users of whom only such interactions were left",
    "texts_of_unknown_items": "texts of items that are not in the catalogue",
    "repeated_texts": "further texts of items that have one already",
}
_FEATURES = "feature_rows_without_item_"
# The reasons that count interactions, of which the others are not a part.
INTERACTIONS = (
    "rows_with_null",
    "rows_not_kept",
    "duplicates",
    "k_core_interactions",
    "truncated_interactions",
    "training_interactions_of_cold_items",
)


def dropped_facts(manifest: Mapping[str, Any]) -> tuple[Dropped, ...]:
    """Return what was left out, without reasons that left nothing out."""
    source = stated(manifest, "source")
    return tuple(
        Dropped(reason=reason, words=_in_words(reason, source), count=count)
        for reason, count in stated(manifest, "dropped").items()
        if isinstance(count, int) and count > 0
    )


def _in_words(reason: str, source: Mapping[str, Any]) -> str:
    if reason.startswith(_FEATURES):
        return f"rows in the features {reason.removeprefix(_FEATURES)} of items that are not in the dataset"
    words = _WORDS.get(reason)
    if words is None:
        return reason.replace("_", " ")
    return words.format_map(_Options(source))


class _Options(dict[str, Any]):
    """Options as a message shows them; an option without a recorded value is named instead."""

    def __missing__(self, key: str) -> str:
        return f"--{key.replace('_', '-')}"

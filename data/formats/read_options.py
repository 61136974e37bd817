"""The options of reading that `jobs/prepare_data.py` takes for files of interactions; None means not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from contracts.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read files of interactions and of items.

    Attributes:
        user_column: name of the column of users.
        item_column: name of the column of items.
        timestamp_column: name of the column of timestamps; "none": there are none, and rows are in order of time.
        delimiter: the separator of columns of text files.
        columns: the names of the columns of text files without a header, separated by commas.
        quotes: whether '"' quotes values of text files.
        time_unit: unit of numbers as timestamps: auto, s, ms, us or ns.
        time_format: how dates are written, as for strptime.
        keep: conditions that rows must hold.
        items: file, folder or glob with descriptions of items.
        item_delimiter: the separator of its columns if it is text.
        item_names: the names of its columns if it is text without a header, separated by commas.
        item_id_column: its column of ids.
        title_column: its columns that are joined to the item's text.
        item_columns: its columns to carry along, separated by commas.
    """

    user_column: str | None = None
    item_column: str | None = None
    timestamp_column: str | None = None
    delimiter: str | None = None
    columns: str | None = None
    quotes: bool | None = None
    time_unit: str | None = None
    time_format: str | None = None
    keep: tuple[str, ...] = ()
    items: str | None = None
    item_delimiter: str | None = None
    item_names: str | None = None
    item_id_column: str | None = None
    title_column: tuple[str, ...] = ()
    item_columns: str | None = None

    def given(self) -> Mapping[str, Any]:
        """Return the options that were given, by name; lists in place of tuples, as the manifest has them."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value != ()
        }

    def check(self, looked_for: Sequence[str] = ()) -> None:
        """Raise InputError if options need others that were not given.

        Args:
            looked_for: names of files of items that were looked for and not found, for the message.
        """
        found = f"; found no {' or '.join(looked_for)}" if looked_for else ""
        if self.items is None:
            for name in ("item_delimiter", "item_names", "item_id_column", "title_column", "item_columns"):
                if getattr(self, name):
                    raise InputError(
                        f"--{name.replace('_', '-')}: is about the file of --items{found}; add --items FILE"
                    )


OPTION_NAMES = frozenset(option.name for option in fields(ReadOptions))

"""What a preparation needs to grow a dataset: OLD's ids, its rows before the new ones, and its facts about items."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.errors import InputError
from data.dataset import Dataset
from data.formats.source import InteractionSource
from data.prepare.engine.plan import KnownIds
from data.prepare.features import AlignedRows
from data.prepare.growth.carried import carried_features, carried_items
from data.prepare.growth.joined import Joined
from data.prepare.growth.stored_rows import StoredRows
from data.writing import FeatureRows
from storage.uris import is_uri


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How a dataset grows.

    Attributes:
        old: OLD, which is only read.
    """

    old: Dataset

    def known_ids(self) -> KnownIds:
        """Return the ids that keep their numbers."""
        return KnownIds(users=self.old.user_source_ids(), items=self.old.item_source_ids())

    def joined(self, new: InteractionSource) -> Joined:
        """Return OLD's rows and the new ones as one source."""
        path = self.old.path if is_uri(self.old.path) else os.path.abspath(self.old.path)
        return Joined(
            old=StoredRows(path=path, unit=self.old.manifest.get("source", {}).get("timestamp_unit")),
            has_times=self.old.timestamps is not None,
            new=new,
            origin=self._origin(),
        )

    def _origin(self) -> dict[str, Any]:
        """Return what the manifest says about OLD, and about the datasets that it has grown from."""
        origin = {
            "path": self.old.path,
            "fingerprint": self.old.fingerprint,
            "num_users": self.old.num_users,
            "num_items": self.old.num_items,
        }
        earlier = self.old.manifest.get("source", {}).get("appended_to")
        return origin if earlier is None else origin | {"appended_to": earlier}

    def items(
        self, texts: pa.Array | None, columns: pa.Table | None, num_items: int
    ) -> tuple[pa.Array | None, pa.Table | None]:
        """Return texts and further columns of all items; see `carried.carried_items`."""
        return carried_items(self.old, texts, columns, num_items)

    def features(
        self, found: Mapping[str, AlignedRows], num_items: int
    ) -> tuple[dict[str, FeatureRows], dict[str, int]]:
        """Return the features of all items, and the number of rows not used; see `carried.carried_features`."""
        return carried_features(self.old, found, num_items)


def open_growth(path: str, output: str) -> Growth:
    """Open OLD and check every value of it.

    Raises:
        InputError: OLD is not a finished dataset, or damaged, or lacks rows; or the output is in OLD's place, inside it
            or around it.
    """
    _check_apart(path, output)
    old = Dataset.open(path)
    if old.cold_items() is not None:
        raise InputError(
            f"--append {path}: lacks the training interactions of its cold items, so it cannot grow; prepare all rows "
            "at once, with --cold-item-share and --seed as there"
        )
    old.validate()
    return Growth(old=old)


def _check_apart(old: str, output: str) -> None:
    if is_uri(old) != is_uri(output):
        return
    if is_uri(old):
        first, second = (f"{path.rstrip('/')}/" for path in (old, output))
    else:
        first, second = (f"{Path(path).expanduser().resolve()}/" for path in (old, output))
    if first.startswith(second) or second.startswith(first):
        raise InputError(
            f"--output {output}: is the folder of --append {old}, inside it or around it, and the old dataset stays "
            "as it is; name another output"
        )

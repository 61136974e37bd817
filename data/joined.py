"""Several datasets as one: their users and items side by side, without a copy on disk.

N items, U users, E interactions of all datasets together. The users of the second dataset follow those of the first,
and so do its items. Nothing is merged by name: an item that two datasets have is two items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.places import shown
from contracts.errors import InputError
from contracts.rows import Rows
from data.dataset import Dataset
from data.domains import Domain
from data.encoding.facts import check_same_encoders
from data.ragged import offsets_of
from storage.fingerprints import joined_digest
from storage.stacked_rows import EqualRows, StackedRows


class JoinedDataset:
    """The users and items of several opened datasets, with the interface of `Dataset`.

    Items, timestamps and features are read from the memory-mapped files of the datasets when they are asked for. In
    memory are offsets, train_end and valid_end: 24 bytes for each user. It is pickled as the paths of its datasets.

    A modality of one dataset is the modality of this name of another, so their vectors must be comparable: of one width
    and, as far as the datasets name their encoders, of one encoder. Items of a dataset without a modality lack it.

    Attributes:
        parts: the datasets, in their order.
        path: the paths of all, as a config names them: [A,B].
        fingerprint: SHA-256 of the datasets' fingerprints in their order.
        num_users: U.
        num_items: N.
        num_interactions: E.
        modalities: the names that any of the datasets has, ascending.
        offsets: int64 [U+1]; the sequence of user u is items[offsets[u]:offsets[u + 1]], oldest first.
        items: int64 [E], read when they are asked for.
        timestamps: int64 [E], likewise, each as its dataset has it; None if any dataset has none.
        train_end: int64 [U], see `Dataset`.
        valid_end: int64 [U], see `Dataset`.
        domains: where the users and items of each dataset are.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        """Use `open_datasets`.

        Raises:
            InputError: two of them are the same dataset, or have vectors of a modality that cannot be compared.
        """
        assert len(parts) > 1, "one dataset is itself"
        self.parts = tuple(parts)
        self.path = shown([part.path for part in parts])
        _check_distinct(self.path, parts)
        self.fingerprint = joined_digest([part.fingerprint for part in parts])
        self.domains = _domains(parts)
        self.num_users = sum(part.num_users for part in parts)
        self.num_items = sum(part.num_items for part in parts)
        self.num_interactions = sum(part.num_interactions for part in parts)
        self.modalities = tuple(sorted({name for part in parts for name in part.modalities}))
        self._widths = {name: _common_width(self.path, name, parts) for name in self.modalities}
        self.encoders = _common_encoders(self.path, parts)
        self.offsets = offsets_of(np.concatenate([np.diff(part.offsets) for part in parts]))
        self.train_end = np.concatenate([part.train_end for part in parts])
        self.valid_end = np.concatenate([part.valid_end for part in parts])
        shifts = [domain.first_item for domain in self.domains]
        self.items: Rows = StackedRows([part.items for part in parts], shifts=shifts)
        times = [part.timestamps for part in parts if part.timestamps is not None]
        self.timestamps: Rows | None = StackedRows(times) if len(times) == len(parts) else None

    @property
    def ancestors(self) -> dict[str, int]:
        """The datasets whose items are the first ones of these, with the same numbers: fingerprint, number of items.

        These are the first dataset and those that it has grown from, and the first two, three, ... datasets as one.
        """
        found = dict(self.parts[0].ancestors)
        for count in range(1, len(self.parts)):
            fingerprint = joined_digest([part.fingerprint for part in self.parts[:count]])
            found[fingerprint] = self.domains[count].first_item
        return found

    def features(self, modality: str) -> Rows:
        """Return a modality's features, read when they are asked for: float16 or float32 [N, d_m].

        The type is that of the datasets that have the modality, and float32 if theirs differ. Rows of items whose
        dataset lacks it are zero.

        Raises:
            InputError: no dataset has this modality.
        """
        self._check_modality(modality)
        held = {
            number: part.features(modality) for number, part in enumerate(self.parts) if modality in part.modalities
        }
        dtypes = {array.dtype for array in held.values()}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
        blanks = [
            EqualRows(value=0, shape=(part.num_items, self._widths[modality]), dtype=dtype) for part in self.parts
        ]
        return StackedRows([held.get(number, blank) for number, blank in enumerate(blanks)], dtype=dtype)

    def presence(self, modality: str) -> np.ndarray:
        """Return which items have the modality: bool [N]."""
        self._check_modality(modality)
        return np.concatenate(
            [
                part.presence(modality) if modality in part.modalities else np.zeros(part.num_items, dtype=bool)
                for part in self.parts
            ]
        )

    def popularity(self) -> np.ndarray:
        """Return the number of training interactions of each item: int64 [N]."""
        return np.concatenate([part.popularity() for part in self.parts])

    def cold_items(self) -> np.ndarray | None:
        """Return which items were held out of training when their dataset was prepared: bool [N]; None if none were."""
        found = [part.cold_items() for part in self.parts]
        if all(cold is None for cold in found):
            return None
        return np.concatenate(
            [
                np.zeros(part.num_items, dtype=bool) if cold is None else cold
                for part, cold in zip(self.parts, found, strict=True)
            ]
        )

    def item_source_ids(self) -> pa.Array:
        """Return NAME/ID for each item, its domain's name and its source id there: large_string [N]."""
        return self._named(Dataset.item_source_ids)

    def user_source_ids(self) -> pa.Array:
        """Return NAME/ID for each user, its domain's name and its source id there: large_string [U]."""
        return self._named(Dataset.user_source_ids)

    def item_texts(self) -> pa.Array | None:
        """Return the text of each item, large_string [N] with nulls; None if no dataset has texts."""
        found = [part.item_texts() for part in self.parts]
        if all(texts is None for texts in found):
            return None
        return pa.concat_arrays(
            [
                pa.nulls(part.num_items, pa.large_string()) if texts is None else texts.cast(pa.large_string())
                for part, texts in zip(self.parts, found, strict=True)
            ]
        )

    def validate(self) -> None:
        """Check every dataset; see `Dataset.validate`."""
        for part in self.parts:
            part.validate()

    def __reduce__(self) -> tuple[Any, tuple[tuple[tuple[str, Path], ...]]]:
        return (_reopened, (tuple((part.path, part.folder) for part in self.parts),))

    def _named(self, source_ids: Callable[[Dataset], pa.Array]) -> pa.Array:
        nothing = pa.scalar("", pa.large_string())
        return pa.concat_arrays(
            [
                pc.binary_join_element_wise(pa.scalar(f"{domain.name}/", pa.large_string()), source_ids(part), nothing)
                for domain, part in zip(self.domains, self.parts, strict=True)
            ]
        )

    def _check_modality(self, modality: str) -> None:
        if modality not in self.modalities:
            raise InputError(
                f"dataset={self.path}: none has a modality {modality!r}, only {', '.join(self.modalities) or 'none'}; "
                "prepare one again with --features NAME=FILE"
            )


# What a run trains and ranks on.
RunDataset = Dataset | JoinedDataset


def open_datasets(paths: Sequence[str]) -> RunDataset:
    """Open the datasets of a run, which become one. A single one stays what it is.

    Args:
        paths: folders or URIs, at least one.

    Raises:
        InputError: a dataset cannot be opened (`Dataset.open`), or they cannot be joined (`JoinedDataset`).
    """
    opened = [Dataset.open(path) for path in paths]
    return opened[0] if len(opened) == 1 else JoinedDataset(opened)


def _reopened(parts: tuple[tuple[str, Path], ...]) -> JoinedDataset:
    return JoinedDataset([Dataset._open_copy(path, folder) for path, folder in parts])


def _check_distinct(joined: str, parts: Sequence[Dataset]) -> None:
    seen: dict[str, str] = {}
    for part in parts:
        if part.fingerprint in seen:
            raise InputError(
                f"dataset={joined}: {seen[part.fingerprint]} and {part.path} are the same dataset (fingerprint "
                f"{part.fingerprint[:12]}), whose users would count twice; name it once"
            )
        seen[part.fingerprint] = part.path


def _domains(parts: Sequence[Dataset]) -> tuple[Domain, ...]:
    domains: list[Domain] = []
    first_user = first_item = 0
    for part in parts:
        (own,) = part.domains
        taken, name, number = {domain.name for domain in domains}, own.name, 2
        while name in taken:
            name, number = f"{own.name}-{number}", number + 1
        domains.append(
            Domain(
                name=name,
                path=own.path,
                fingerprint=own.fingerprint,
                first_user=first_user,
                num_users=own.num_users,
                first_item=first_item,
                num_items=own.num_items,
            )
        )
        first_user, first_item = first_user + own.num_users, first_item + own.num_items
    return tuple(domains)


def _common_width(joined: str, modality: str, parts: Sequence[Dataset]) -> int:
    """Return the width of a modality's vectors, which must be the same in all datasets that have it."""
    widths = {part.path: part.features(modality).shape[1] for part in parts if modality in part.modalities}
    (first, width), *others = widths.items()
    for path, other in others:
        if other != width:
            raise InputError(
                f"dataset={joined}: vectors of {modality} have width {width} in {first} and {other} in {path}; encode "
                "the items of both with one encoder, or give the modalities different names"
            )
    return width


def _common_encoders(joined: str, parts: Sequence[Dataset]) -> dict[str, str]:
    """Return the label of each modality's encoder, which must agree where two datasets name one."""
    known: dict[str, tuple[str, str]] = {}  # the label of each modality, and the first dataset that names it
    for part in parts:
        for modality, label in part.encoders.items():
            first, path = known.setdefault(modality, (label, part.path))
            check_same_encoders(
                {modality: first},
                {modality: label},
                (f"dataset={joined}: in {path}", part.path),
                "encode the items of both with the same encoder and settings, or give the modalities different names",
            )
    return {modality: label for modality, (label, _) in known.items()}

"""Carries what OLD knows about its items over, and adds what new files tell. N items, the first of which are OLD's.

What OLD has stays as it is; what an item of OLD lacks, the new files may add.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import InputError
from data.dataset import Dataset
from data.encoding.facts import check_same_encoders, label_of
from data.layout import ITEMS
from data.prepare.features import AlignedRows
from data.writing import FeatureRows

_OWN_COLUMNS = ("item", "source_id", "popularity")


@dataclass(frozen=True, kw_only=True)
class CarriedRows:
    """The features of a modality of OLD, and those of a file for other items (a `writing.FeatureRows`).

    Attributes:
        old: float16 or float32 [N_old, d_m], OLD's rows, memory-mapped.
        added: rows of a file for items that OLD has no features of; None: there is no file.
        num_items: N.
        encoder: what OLD's manifest says about the encoder; None: nothing.
    """

    old: np.ndarray
    added: AlignedRows | None
    num_items: int
    encoder: Mapping[str, Any] | None

    @property
    def dim(self) -> int:
        return int(self.old.shape[1])

    @property
    def dtype(self) -> np.dtype:
        return self.old.dtype

    def blocks(self, block_rows: int) -> Iterator[np.ndarray]:
        """Yield blocks in item order. Raises InputError for a NaN or an infinity in the file."""
        added = None if self.added is None else self.added.blocks(block_rows)
        for start in range(0, self.num_items, block_rows):
            count = min(block_rows, self.num_items - start)
            block = np.zeros((count, self.dim), self.dtype) if added is None else next(added)
            known = self.old[start : start + count]
            if self.added is None or self.added.rows is None:
                block[: len(known)] = known
            else:
                kept = self.added.rows[start : start + len(known)] < 0
                block[: len(known)][kept] = known[kept]
            yield block


def carried_features(
    old: Dataset, found: Mapping[str, AlignedRows], num_items: int
) -> tuple[dict[str, FeatureRows], dict[str, int]]:
    """Return the features of all modalities of OLD and of the files, and the number of rows that were not used.

    Args:
        old: OLD.
        found: the rows of files, in the order of all N items.
        num_items: N.

    Raises:
        InputError: a file has another width, type or encoder than OLD.
    """
    features: dict[str, FeatureRows] = dict(found)
    unused: dict[str, int] = {}
    for modality in old.modalities:
        rows, added = old.features(modality), found.get(modality)
        encoder = old.manifest["modalities"][modality].get("encoder")
        if added is not None:
            _check_alike(old, modality, added)
            assert added.rows is not None
            has_both = np.zeros(num_items, bool)
            has_both[: old.num_items] = old.presence(modality)
            has_both &= added.rows >= 0
            if has_both.any():
                unused[f"feature_rows_of_known_items_{modality}"] = int(np.count_nonzero(has_both))
            added = replace(added, rows=np.where(has_both, -1, added.rows))
        features[modality] = CarriedRows(old=rows, added=added, num_items=num_items, encoder=encoder)
    return features, unused


def _check_alike(old: Dataset, modality: str, added: AlignedRows) -> None:
    facts = old.manifest["modalities"][modality]
    if (added.dim, str(added.dtype)) != (facts["dim"], facts["dtype"]):
        raise InputError(
            f"{added.file}: vectors of {modality} have {added.dim} values of {added.dtype}, and those of {old.path} "
            f"have {facts['dim']} of {facts['dtype']}; make the new ones with the encoder and the type of the old"
        )
    encoders = facts.get("encoder"), getattr(added, "encoder", None)
    ours, theirs = (None if encoder is None else label_of(encoder) for encoder in encoders)
    if ours is not None and theirs is None:
        raise InputError(
            f"{added.file}: does not name its encoder, and vectors of {modality} of {old.path} are of {ours}; "
            "encode the new items with jobs/encode_items.py and the same encoder"
        )
    if ours is not None and theirs is not None:
        check_same_encoders(
            {modality: theirs},
            {modality: ours},
            (added.file, old.path),
            "encode the new items with the encoder and settings of the old, TF-IDF with --reuse",
        )


def carried_items(
    old: Dataset, texts: pa.Array | None, columns: pa.Table | None, num_items: int
) -> tuple[pa.Array | None, pa.Table | None]:
    """Return texts, large_string [N] with nulls, and further columns of items: OLD's, and where it has a null the new.

    Args:
        old: OLD.
        texts: the texts that new files tell, [N] with nulls, or None.
        columns: the further columns that they tell, [N] rows with nulls, or None.
        num_items: N.

    Raises:
        InputError: a column has another type than in OLD.
    """
    told = {} if columns is None else {name: columns.column(name).combine_chunks() for name in columns.column_names}
    if texts is not None:
        told["text"] = texts
    found = dict(told)
    taken = {*_OWN_COLUMNS, *(f"has_{modality}" for modality in old.modalities)}
    for name in pq.read_schema(old.folder / ITEMS).names:
        if name not in taken:
            found[name] = _filled(old, name, told.get(name), num_items)
    all_texts = found.pop("text", None)
    return all_texts, pa.table(found) if found else None


def _filled(old: Dataset, name: str, told: pa.Array | None, num_items: int) -> pa.Array:
    with pq.ParquetFile(old.folder / ITEMS) as parquet:
        known = parquet.read(columns=[name]).column(0).combine_chunks()
    complete = pa.concat_arrays([known, pa.nulls(num_items - len(known), known.type)])
    if told is None:
        return complete
    try:
        return pc.coalesce(complete, told.cast(known.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"--item-columns {name}: is {told.type}, and {known.type} in {old.path}; write it as there, or leave it out"
        ) from None

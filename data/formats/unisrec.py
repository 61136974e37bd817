"""Reads UniSRec's pre-processed folder: `<Name>.{test,valid}.inter` and, if there are any, train, indices and texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.delimited import read_delimited, read_header
from data.formats.unisrec_rows import read_sequential
from data.formats.unisrec_sequences import whole_sequences
from data.layout import local_path
from data.writing import Sequences


@dataclass(frozen=True, kw_only=True)
class UniSRecFolder:
    """The content of a folder: sequences with their split, ids, texts, and notes for the manifest."""

    folder: Path
    name: str
    sequences: Sequences
    user_source_ids: pa.Array
    item_source_ids: pa.Array
    item_texts: pa.Array | None
    dropped: dict[str, int]
    source: dict[str, Any]


def read_unisrec(path: str) -> UniSRecFolder:
    """Read a folder with the split of its files: the last item is for testing, the one before for validation.

    Raises:
        InputError: files are missing or malformed, or contradict each other; names the file and the user.
    """
    folder = local_path(path)
    name = _dataset_name(folder)
    files = {split: folder / f"{name}.{split}.inter" for split in ("test", "valid", "train")}
    if not files["valid"].is_file():
        raise InputError(f"{files['valid']}: missing; --format unisrec needs the valid file beside the test file")
    present = {split: file for split, file in files.items() if file.is_file()}
    user_index, item_index = (_if_file(folder / f"{name}.{kind}2index") for kind in ("user", "item"))
    data = read_sequential(present, user_index, item_index)
    rows = data.rows
    offsets, items, notes = whole_sequences(rows["test"], rows["valid"], rows.get("train"), data.user_source_ids)
    lengths = np.diff(offsets)
    texts, dropped = _read_texts(_if_file(folder / f"{name}.text"), data.item_source_ids)
    numbering = {f"numbering_of_{kind}": rule for kind, rule in data.numbering.items()}
    return UniSRecFolder(
        folder=folder,
        name=name,
        sequences=Sequences(
            offsets=offsets, items=items, timestamps=None, train_end=lengths - 2, valid_end=lengths - 1
        ),
        user_source_ids=data.user_source_ids,
        item_source_ids=data.item_source_ids,
        item_texts=texts,
        dropped=dropped,
        source={"format": "unisrec", "files": [file.name for file in present.values()]} | numbering | notes,
    )


def _dataset_name(folder: Path) -> str:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --format unisrec reads a folder with <Name>.test.inter")
    names = sorted(file.name.removesuffix(".test.inter") for file in folder.glob("*.test.inter"))
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise InputError(f"{folder}: expected one <Name>.test.inter, found {found}; give each data set its own folder")
    return names[0]


def _if_file(file: Path) -> Path | None:
    return file if file.is_file() else None


def _read_texts(file: Path | None, source_ids: pa.Array) -> tuple[pa.Array | None, dict[str, int]]:
    """Return texts [N] with nulls, from rows 'source id TAB text' under a header; of repeated rows the first counts."""
    if file is None:
        return None, {}
    header = read_header(str(file))
    if len(header) != 2 or header[0] != "item_id:token":
        raise InputError(f"{file}: header is {header}, expected item_id:token and text:token_seq; add the header")
    table = read_delimited(str(file))
    items, texts = (table.column(column).combine_chunks() for column in header)
    known = pc.is_in(items, value_set=source_ids)
    dropped = {
        "texts_of_unknown_items": len(items) - int(known.true_count),
        "repeated_texts": len(items) - len(pc.unique(items)),
    }
    return texts.take(pc.index_in(source_ids, value_set=items)), dropped

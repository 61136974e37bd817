"""Reads UniSRec's sequential files as lists of integers; each row is a history and the item that follows it.

R rows of a file, V distinct tokens over all files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.delimited import check_separator, read_delimited, read_header
from data.ragged import offsets_of

_USER, _LIST, _ITEM = "user_id:token", "item_id_list:token_seq", "item_id:token"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one file, as ids.

    Attributes:
        file: path of the file.
        users: int64 [R].
        offsets: int64 [R+1]; row r is items[offsets[r]:offsets[r + 1]], history first, target last.
        items: int64, the items of all rows.
    """

    file: str
    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The number of items of each row, including the target: int64 [R], >= 2."""
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True)
class SequentialFiles:
    """The files of a split, with a common numbering of users and items."""

    rows: Mapping[str, Rows]
    user_source_ids: pa.Array
    item_source_ids: pa.Array
    numbering: Mapping[str, str]


def read_sequential(files: Mapping[str, Path], user_index: Path | None, item_index: Path | None) -> SequentialFiles:
    """Read the `.inter` files and number users and items densely.

    With an index file, tokens are its indices. Without one, tokens that are exactly the numbers 0..max keep their
    number; other tokens are numbered in order of first appearance, in the given order of files.

    Raises:
        InputError: a header is wrong, a row is malformed, a history is empty, an id is not in the index file, or the
            index file has gaps.
    """
    tables = {name: _read_file(str(file)) for name, file in files.items()}
    users = _Tokens({name: table.column(_USER) for name, table in tables.items()})
    lists = {name: _split(str(files[name]), table) for name, table in tables.items()}
    items = _Tokens({name: tokens for name, (_, tokens) in lists.items()})
    user_ids, user_source_ids, user_rule = _number(users.vocabulary, user_index)
    item_ids, item_source_ids, item_rule = _number(items.vocabulary, item_index)
    rows = {}
    for name, file in files.items():
        offsets = lists[name][0]
        of_users, of_items = user_ids[users.codes[name]], item_ids[items.codes[name]]
        _check_known(str(file), "user", of_users, np.arange(len(of_users)), users, name, len(user_source_ids))
        owners = np.repeat(np.arange(len(of_users)), np.diff(offsets))
        _check_known(str(file), "item", of_items, owners, items, name, len(item_source_ids))
        rows[name] = Rows(file=str(file), users=of_users, offsets=offsets, items=of_items)
    return SequentialFiles(
        rows=rows,
        user_source_ids=user_source_ids,
        item_source_ids=item_source_ids,
        numbering={"users": user_rule, "items": item_rule},
    )


class _Tokens:
    """The vocabulary of a column over several files, in order of first appearance, and the codes of its values."""

    def __init__(self, columns: Mapping[str, pa.ChunkedArray]) -> None:
        encoded = {name: column.dictionary_encode() for name, column in columns.items()}
        chunks = [chunk for column in encoded.values() for chunk in column.chunks]
        unified = pa.chunked_array(chunks).unify_dictionaries()
        self.vocabulary: pa.Array = unified.chunk(0).dictionary
        self.codes: dict[str, np.ndarray] = {}
        first = 0
        for name, column in encoded.items():
            own = unified.chunks[first : first + column.num_chunks]
            self.codes[name] = np.concatenate([chunk.indices.to_numpy() for chunk in own])
            first += column.num_chunks


def _read_file(file: str) -> pa.Table:
    header = read_header(file)
    check_separator(file, header, [_USER, _LIST, _ITEM])
    if header != [_USER, _LIST, _ITEM]:
        raise InputError(
            f"{file}: header is {' '.join(header)[:120]!r}, expected {_USER}, {_LIST}, {_ITEM} separated by tabs; "
            "plain interactions are --format recbole"
        )
    table = read_delimited(file)
    if not table.num_rows:
        raise InputError(f"{file}: has a header and no rows; restore it")
    return table


def _split(file: str, table: pa.Table) -> tuple[np.ndarray, pa.ChunkedArray]:
    """Return each row's history and target as one flat list of tokens: offsets [R+1] and tokens."""
    history = pc.utf8_trim_whitespace(table.column(_LIST))
    target = pc.utf8_trim_whitespace(table.column(_ITEM))
    problems = {
        "an empty item_id_list; every row needs at least one item before its target, remove it": pc.equal(history, ""),
        "no target item; the file may be truncated, restore it": pc.equal(target, ""),
        "several items as its target; the columns may be swapped, correct it": pc.match_substring(target, " "),
        "no user; number the users": pc.equal(pc.utf8_trim_whitespace(table.column(_USER)), ""),
    }
    for problem, mask in problems.items():
        if len(bad := np.flatnonzero(mask.to_numpy())):
            row = int(bad[0])
            raise InputError(f"{file}: row {row + 2} (user {table.column(_USER)[row].as_py()}) has {problem}")
    lists = pc.utf8_split_whitespace(pc.binary_join_element_wise(history, target, pa.scalar(" ", pa.large_string())))
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    return offsets_of(lengths), pc.list_flatten(lists)


def _number(vocabulary: pa.Array, index: Path | None) -> tuple[np.ndarray, pa.Array, str]:
    """Return the dense id of each token (int64 [V], -1: not in the index), the source id of each, and the rule."""
    numbers = _whole_numbers(vocabulary)
    if index is not None:
        source_ids = read_index(index)
        return np.where(numbers < len(source_ids), numbers, -1), source_ids, f"as in {index.name}"
    if numbers.min() == 0 and numbers.max() == len(numbers) - 1 and len(np.unique(numbers)) == len(numbers):
        order = np.argsort(numbers)
        return numbers, vocabulary.take(pa.array(order)), "the tokens, which are 0..max"
    return np.arange(len(vocabulary)), vocabulary, "order of first appearance"


def _whole_numbers(vocabulary: pa.Array) -> np.ndarray:
    """Return tokens as int64; -1 for a token that is not a canonical decimal ('007' and '7' are different tokens)."""
    whole = pc.match_substring_regex(vocabulary, r"^(0|[1-9][0-9]{0,17})$")
    return pc.fill_null(pc.if_else(whole, vocabulary, None).cast(pa.int64()), -1).to_numpy()


def read_index(index: Path) -> pa.Array:
    """Return source ids in index order, from a file of rows 'source id TAB index'.

    Raises:
        InputError: an id is empty, or the indices are not the whole numbers from 0 without gaps or repetitions.
    """
    table = read_delimited(str(index), names=["source", "index"])
    numbers = _whole_numbers(table.column("index").combine_chunks())
    num = len(numbers)
    if len(bad := np.flatnonzero((numbers < 0) | (numbers >= num))):
        value = table.column("index")[int(bad[0])].as_py()
        raise InputError(
            f"{index}: row {bad[0] + 1} has index {value!r}, expected 0 to {num - 1} for its {num} rows: "
            "the ids have a gap; number them 0, 1, 2, ..."
        )
    counts = np.bincount(numbers, minlength=num)
    if len(repeated := np.flatnonzero(counts > 1)):
        gap = int(np.flatnonzero(counts == 0)[0])
        raise InputError(
            f"{index}: index {repeated[0]} occurs {counts[repeated[0]]} times and {gap} never: the ids have a gap; "
            "number them 0, 1, 2, ..."
        )
    source_ids = table.column("source").combine_chunks()
    if len(empty := np.flatnonzero(pc.equal(source_ids, "").to_numpy(zero_copy_only=False))):
        raise InputError(f"{index}: row {empty[0] + 1} has no id; name every item and user of an index file")
    return source_ids.take(pa.array(np.argsort(numbers)))


def _check_known(file: str, kind: str, ids: np.ndarray, rows: np.ndarray, tokens: _Tokens, name: str, num: int) -> None:
    if len(bad := np.flatnonzero(ids < 0)):
        token = tokens.vocabulary[int(tokens.codes[name][bad[0]])].as_py()
        raise InputError(
            f"{file}: row {rows[bad[0]] + 2} has {kind} {token!r}, the {kind}2index file knows 0 to {num - 1}; "
            "use the index file that belongs to this split"
        )

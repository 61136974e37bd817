"""Reads lists of items that a caller gives: histories, items to leave out, items to choose from.

n: lists, m: items in all lists together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from contracts.errors import InputError
from data.ragged import offsets_of, take_lists
from serving.item_names import ItemNames

OnUnknown = Literal["skip", "error"]
# A list for each user: sequences of source ids (str) or of dense ids (int), an array of lists, or a matrix of integers.
ItemLists: TypeAlias = Sequence[Sequence[str] | Sequence[int] | np.ndarray] | np.ndarray | pa.Array | pa.ChunkedArray
_ADVICE = "give source ids as strings, or dense ids as whole numbers"


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The sequences of n users, oldest item first. It is a `data.sequences.SequenceArrays`, and has no targets.

    Attributes:
        num_items: N, the items of the catalogue.
        offsets: int64 [n+1]; the history of user u is items[offsets[u]:offsets[u + 1]].
        items: int64 [m], dense ids.
        unknown: int64 [n], how many ids of each history no item of the catalogue has. They are left out.
        were_numbers: whether items were given as whole numbers.
    """

    num_items: int
    offsets: np.ndarray
    items: np.ndarray
    unknown: np.ndarray
    were_numbers: bool = False

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def train_end(self) -> np.ndarray:
        return self.lengths

    @property
    def valid_end(self) -> np.ndarray:
        return self.lengths


def read_lists(lists: ItemLists, what: str, names: ItemNames, num_items: int, on_unknown: OnUnknown) -> Histories:
    """Read a list of items for each user.

    Args:
        lists: the lists. All items are source ids, or all are dense ids.
        what: the name of the argument, for messages.
        names: the source ids of the catalogue.
        num_items: N.
        on_unknown: "skip": leave unknown ids out and count them; "error": refuse them.

    Raises:
        InputError: these are not lists of ids, an item is missing, or an id is unknown and `on_unknown` is "error".
    """
    lengths, dense, were_numbers = _read(lists, what, names, num_items, on_unknown)
    known = dense >= 0
    offsets = np.concatenate([[0], np.cumsum(known, dtype=np.int64)])[offsets_of(lengths)]
    return Histories(
        num_items=num_items,
        offsets=offsets,
        items=dense[known],
        unknown=lengths - np.diff(offsets),
        were_numbers=were_numbers,
    )


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Items that a caller chose: a list for each of n users, or one list for all.

    Attributes:
        offsets: int64 [n+1], or [2] for one list.
        items: int64 [m], dense ids; -1 for an unknown one.
        is_common: whether there is one list for all users.
        were_numbers: whether items were given as whole numbers.
    """

    offsets: np.ndarray
    items: np.ndarray
    is_common: bool
    were_numbers: bool = False

    @property
    def num_unknown(self) -> int:
        """How many of the items no item of the catalogue is."""
        return int((self.items < 0).sum())

    def lengths(self, users: np.ndarray) -> np.ndarray:
        """Return the number of items of each user's list, int64."""
        return np.diff(self.offsets)[self._lists_of(users)]

    def pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the users' items, one list after the other: rows (places in `users`) and item ids, int64 each."""
        offsets, items = take_lists(self.offsets, self.items, self._lists_of(users))
        return np.repeat(np.arange(len(users)), np.diff(offsets)), items

    def known_pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the same without unknown items."""
        rows, items = self.pairs(users)
        return rows[items >= 0], items[items >= 0]

    def _lists_of(self, users: np.ndarray) -> np.ndarray:
        return np.zeros_like(users) if self.is_common else users


def read_choices(
    items: Any, what: str, names: ItemNames, num_items: int, on_unknown: OnUnknown, num_users: int
) -> Choices:
    """Read a list of items for each of n users, or one list for all of them.

    Raises:
        InputError: see `read_lists`; or there are several lists, and their number is not that of the users.
    """
    items = _as_lists(items, what)
    if isinstance(items, pa.Array):
        is_common = not is_list(items.type)
        one_list = items if not is_common else pa.ListArray.from_arrays([0, len(items)], items)
    else:
        is_common = len(items) == 0 or not _is_sequence(items[0])
        # The order of these items means nothing, so they may be sets.
        one_list = [items] if is_common else [list(one) if isinstance(one, Set) else one for one in items]
    lengths, dense, were_numbers = _read(one_list, what, names, num_items, on_unknown)
    if not is_common and len(lengths) != num_users:
        raise InputError(
            f"{what}: has {len(lengths):,} lists for {num_users:,} histories; give one for each history, or one list "
            "of items for all of them"
        )
    return Choices(offsets=offsets_of(lengths), items=dense, is_common=is_common, were_numbers=were_numbers)


def _read(
    lists: ItemLists, what: str, names: ItemNames, num_items: int, on_unknown: OnUnknown
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the lengths of the lists int64 [n], their items int64 [m], and whether these were whole numbers.

    An unknown item is -1.
    """
    if on_unknown not in ("skip", "error"):
        raise InputError(f"on_unknown={on_unknown!r}: is neither 'skip' nor 'error'")
    lengths, values = _flattened(lists, what)
    if values.null_count:
        at = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{_place(what, lengths, at)} is missing (None); leave it out")
    dense = _dense(values, what, names, num_items)
    unknown = dense < 0
    if on_unknown == "error" and unknown.any():
        at = int(np.flatnonzero(unknown)[0])
        raise InputError(
            f"{_place(what, lengths, at)} is {values[at].as_py()!r}, which none of the {num_items:,} items has "
            f"({int(unknown.sum()):,} such ids in all); correct it, or set on_unknown='skip' to leave such ids out"
        )
    return lengths, dense, bool(pa.types.is_integer(values.type))


def _flattened(lists: ItemLists, what: str) -> tuple[np.ndarray, pa.Array]:
    """Return the lengths of the lists, int64 [n], and their items one after the other, [m]."""
    lists = _as_lists(lists, what)
    if not isinstance(lists, pa.Array):
        if len(lists) and not (lists[0] is None or _is_sequence(lists[0])):
            raise InputError(f"{what}: is a single list of items; give a list for each user, as in [[...], [...]]")
        item = next((n for n, one in enumerate(lists) if one is not None and not _is_sequence(one)), None)
        if item is not None:
            raise InputError(f"{what}: list {item} is {lists[item]!r}, not a list; give a list for each user")
        without_order = next((one for one in lists if isinstance(one, Set | Mapping)), None)
        if without_order is not None:
            raise InputError(f"{what}: holds a {type(without_order).__name__}, which has no order; give lists of ids")
        lists = [_plain(one) for one in lists]
        try:
            lists = pa.array(lists, pa.list_(pa.null()) if len(lists) == 0 else None)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{what}: cannot be read as lists of ids ({_why(lists, error)}); {_ADVICE}") from None
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    if not is_list(lists.type):
        raise InputError(f"{what}: holds {lists.type}, not lists; give a list of items for each user")
    if lists.null_count:
        at = int(np.flatnonzero(lists.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{what}: list {at} is missing (None); give an empty list for no items")
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths, lists.flatten()


def _as_lists(lists: Any, what: str) -> Any:
    """Return an Arrow array, a NumPy array or a list of what a caller gave.

    Raises:
        InputError: it is none of these, and not to be iterated over in order.
    """
    if isinstance(lists, pa.ChunkedArray):
        return lists.combine_chunks()
    if isinstance(lists, pa.Array | list) or (isinstance(lists, np.ndarray) and lists.ndim):
        return lists
    if isinstance(lists, np.ndarray | str | bytes | Mapping) or not isinstance(lists, Iterable):
        name = type(lists).__name__
        raise InputError(f"{what}: is of type {name}; give a list of ids for each user, as in [[...], [...]]")
    return list(lists)


def _is_sequence(one: Any) -> bool:
    """Whether a value is a list of items and not an item."""
    return isinstance(one, Iterable) and not isinstance(one, str | bytes)


def _plain(one: Any) -> Any:
    """Return a list of items in a form that Arrow reads: a list, a tuple or an array."""
    if one is None or isinstance(one, list | tuple | np.ndarray | pa.Array):
        return one
    return one.tolist() if hasattr(one, "tolist") else list(one)


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _why(lists: Sequence[Any], error: BaseException) -> str:
    """Return why Arrow cannot read lists, in words about ids where the reason is known."""
    kinds = {type(item) for one in lists if one is not None for item in one}
    if str in kinds and len(kinds) > 1:
        other = next(kind.__name__ for kind in kinds if kind is not str)
        return f"they hold both text and values of type {other}"
    return "a number is larger than any id" if isinstance(error, OverflowError) else first_line(error)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _dense(values: pa.Array, what: str, names: ItemNames, num_items: int) -> np.ndarray:
    """Return dense ids, int64 [m]; -1 for an unknown id."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    if is_text(kind):
        return names.dense(values)
    if not pa.types.is_integer(kind):
        raise InputError(f"{what}: holds values of type {kind}, such as {values[0].as_py()!r}; {_ADVICE}")
    items = values.to_numpy(zero_copy_only=False)
    return np.where((items >= 0) & (items < num_items), items, -1).astype(np.int64)


def _place(what: str, lengths: np.ndarray, at: int) -> str:
    ends = np.cumsum(lengths)
    user = int(np.searchsorted(ends, at, side="right"))
    return f"{what}: item {at - int(ends[user] - lengths[user])} of list {user}"

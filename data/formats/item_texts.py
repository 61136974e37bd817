"""Turns titles, descriptions and lists of categories into plain text: without HTML, on one line."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from data.formats.columns import as_text, decoded, is_text

_ENTITY = r"&(#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);"
_TAG = r"</?[a-zA-Z][^<>]*>|<!--[^<>]*-->"
_SPACE = r"[\s\p{Z}]+"
_UNESCAPED_TIMES = 2  # Amazon's titles hold `&amp;quot;`


def joined_list(value: Any) -> str | None:
    """Return the texts and numbers of a value of JSON joined by spaces, also those in nested lists, without nulls.

    Objects are written as JSON. None and lists without any text give None.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [text for part in value if (text := joined_list(part))]
        return " ".join(parts) or None
    return json.dumps(value, ensure_ascii=False)


def texts_of(column: pa.ChunkedArray, file: str, name: str) -> pa.ChunkedArray:
    """Return a column as plain text, with nulls where nothing is left: large_string.

    Args:
        column: text, numbers, truth values, or lists of them, also in lists, which are joined by spaces.
        file: the file's name, for messages.
        name: the column's name, for messages.

    Raises:
        InputError: the column has another type, or its bytes are not UTF-8.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = pa.chunked_array([_joined_list(chunk, file, name) for chunk in column.chunks], pa.large_string())
    elif pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.large_string())
    elif not is_text(kind):
        raise InputError(f"{file}: column {name} is {kind}, expected text or lists of text; name another column")
    return _plain(as_text(column, file, name))


def _joined_list(lists: pa.Array, file: str, name: str) -> pa.Array:
    kind = lists.type.value_type
    if _is_joined(kind) and not (is_text(kind) or pa.types.is_null(kind)):
        return pa.array([joined_list(value) for value in lists.to_pylist()], pa.large_string())
    if not _is_joined(kind):
        raise InputError(f"{file}: column {name} is {lists.type}, expected text or lists of text; name another column")
    lists = lists.cast(pa.large_list(pa.large_string()))
    values = pc.fill_null(lists.values, "")
    filled = pa.LargeListArray.from_arrays(lists.offsets, values)
    return pc.if_else(
        lists.is_valid(), pc.binary_join(filled, pa.scalar(" ", pa.large_string())), pa.scalar(None, pa.large_string())
    )


def _is_joined(kind: pa.DataType) -> bool:
    """Return whether values of this type, inside a list, are joined."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_joined(kind.value_type)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return is_text(kind) or pa.types.is_null(kind) or pa.types.is_boolean(kind) or is_number


def _plain(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    for _ in range(_UNESCAPED_TIMES):
        texts = _unescaped(texts)
    texts = pc.replace_substring_regex(texts, _TAG, " ")
    texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, _SPACE, " "))
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)


def _unescaped(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts with characters for HTML's names of them; only texts that have such names go through Python."""
    has_names = pc.fill_null(pc.match_substring_regex(texts, _ENTITY), False)
    rows = np.flatnonzero(has_names.to_numpy())
    if not len(rows):
        return texts
    plain = [html.unescape(text) for text in texts.take(pa.array(rows)).to_pylist()]
    replaced = pc.replace_with_mask(_one(texts), _one(has_names), pa.array(plain, pa.large_string()))
    return pa.chunked_array([replaced])


def _one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, of any number of chunks."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def joined_texts(texts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the texts of several columns joined by spaces; nulls are left out, and only nulls give a null."""
    # Nulls are replaced: with null_handling="skip", pyarrow 26 leaves out rows that have only nulls.
    separator = pa.scalar(" ", pa.large_string())
    joined = pc.binary_join_element_wise(*texts, separator, null_handling="replace", null_replacement="")
    joined = pc.utf8_trim_whitespace(pc.replace_substring_regex(joined, " +", " "))
    return pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.large_string()), joined)

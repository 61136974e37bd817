"""In which order a user's rows of one length are taken: the file's own, which may be descending."""

import numpy as np
import pytest

from data.formats.unisrec_rows import Rows
from data.formats.unisrec_sequences import _ranks


def rows(*lengths):
    """Rows of one user whose histories have these lengths."""
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    users = np.zeros(len(lengths), dtype=np.int64)
    return Rows(file="file", users=users, offsets=offsets, items=np.arange(offsets[-1]))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((1, 2, 2, 3), [0, 1, 2, 3]),
        ((3, 2, 2, 1), [3, 2, 1, 0]),
        ((2, 2, 2, 1), [3, 2, 1, 0]),  # rows of the same length say nothing about the direction
        ((2, 2, 2), [0, 1, 2]),
    ],
)
def test_rows_of_one_length_follow_the_direction_of_the_file(lengths, expected):
    order, places = _ranks(rows(*lengths))
    assert order.tolist() == expected
    assert places.tolist() == list(range(len(lengths)))

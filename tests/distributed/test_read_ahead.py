"""`read_ahead` yields the same items in order, fetches one item ahead, and raises the errors of the items."""

import pytest

from distributed.training.read_ahead import read_ahead


def noted(count, log, error=None):
    for number in range(count):
        log.append(number)
        yield number
    if error:
        raise error


def test_the_same_items_come_in_order():
    assert list(read_ahead(noted(1000, []))) == list(range(1000))
    assert list(read_ahead([])) == []
    assert list(read_ahead([None, 0, False])) == [None, 0, False]


def test_one_item_is_fetched_ahead():
    log = []
    items = read_ahead(noted(10, log))
    assert next(items) == 0
    items.close()  # waits for the thread
    assert log == [0, 1]


def test_an_error_comes_after_the_items_before_it():
    items = read_ahead(noted(3, [], ValueError("broken row")))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken row"):
        next(items)

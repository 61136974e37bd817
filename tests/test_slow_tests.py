"""tests/README.md lists the tests that `make test` leaves out, each with its reason."""

import pytest

from tests.slow_tests import COLLECTED, PAGE, differences, listed

RESHARD = "tests/distributed/test_reshard.py::test_moves_between_numbers_of_ranks[sixteen moves]"


class Found:
    """Stands for pytest's item of a test, as far as these tests need it."""

    def __init__(self, nodeid, *markers):
        self.nodeid, self.markers = nodeid, markers

    def get_closest_marker(self, name):
        return name if name in self.markers else None


def test_the_page_lists_the_slow_tests(pytestconfig):
    page = PAGE.read_text()
    assert RESHARD in listed(page)
    assert not differences(page, pytestconfig.stash[COLLECTED], pytestconfig.args)


@pytest.mark.parametrize(
    ("items", "arguments", "expected"),
    [
        ([Found("tests/a.py::one", "slow"), Found("tests/a.py::two")], [], set()),
        ([Found("tests/a.py::one", "slow"), Found("tests/a.py::two", "slow")], [], {"tests/a.py::two"}),
        ([Found("tests/a.py::two")], [], {"tests/a.py::one"}),
        ([Found("tests/a.py::two")], ["tests/a.py::two"], set()),
        ([Found("tests/b.py::three")], [], set()),
    ],
    ids=["as listed", "not listed", "not marked", "not collected", "another file"],
)
def test_a_difference_is_found(items, arguments, expected):
    assert differences("| `a.py::one` | it waits |\n| `a.py::nothing said` | |", items, arguments) == expected

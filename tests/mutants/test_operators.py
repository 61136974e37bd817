"""Which faults are made of which text."""

import ast

import pytest

from tests.mutants.__main__ import chosen, describe
from tests.mutants.operators import mutations
from tests.packages import PRODUCT, ROOT


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a not in b", ["x = (a in b)"]),
        ("x = a - b", ["x = (a + b)"]),
        ("x = a and b", ["x = (a or b)"]),
        ("x = not a", ["x = (a)"]),
        ("x = 3", ["x = (4)"]),
        ("x = 0.5", ["x = (1.0)"]),
        ("x = 0.0", ["x = (1.0)"]),
        ("x = True", ["x = (False)"]),
        ("if a: b", ["if (not (a)): b"]),
        ("if a == b: c", ["if (a != b): c"]),  # and no `not (a == b)`, which is the same
        ("f(a)", ["pass"]),
        ("a += b", ["pass"]),
        ("def f(a):\n    a.b = c", ["def f(a):\n    pass"]),
        ("def f(a):\n    return a", ["def f(a):\n    return None"]),
        ("é = 'ü' + (a * b)", ["é = 'ü' + ((a / b))"]),  # columns count bytes
        ("x = (a <\n     b)", ["x = ((a <= b))"]),
    ],
)
def test_what_is_made_of_a_text(source, expected):
    assert [one.source for one in mutations(source)] == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""Text."""',
        "log.info(a)",
        "x: Literal[1] = a",
        "@numba.njit(cache=True)\ndef f(): pass",
        "if TYPE_CHECKING:\n    x = 1",
        "x = 'a' + b",
        "x = f'{a + 1}'",
        "def f():\n    return None",
        "def f():\n    x = a",
    ],
)
def test_what_is_left_alone(source):
    assert mutations(source) == []


def test_a_mutation_knows_its_lines():
    [one] = mutations("a\nx = (b +\n     c)\n")
    assert (one.line, one.last_line, one.before, one.after) == (2, 3, "b +\n     c", "(b - c)")
    assert describe("f.py", one) == "f.py:2: b + c  ->  (b - c)"


@pytest.mark.long
def test_mutations_of_the_product_can_be_parsed_and_differ_from_it():
    for package in PRODUCT:
        found = chosen(package, 20, 0)
        assert len(found) == 20
        for file, mutation in found:
            assert ast.dump(ast.parse(mutation.source)) != ast.dump(ast.parse((ROOT / file).read_text()))


def test_a_seed_chooses_and_another_chooses_otherwise():
    assert chosen("data", 10, 0) == chosen("data", 10, 0) != chosen("data", 10, 1)

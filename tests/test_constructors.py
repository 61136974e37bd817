"""Constructors with more than three parameters take all of them by name.

Two numbers, arrays or flags that are passed by position can be swapped without anybody noticing.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.packages import PRODUCT, ROOT

MOST = 3  # parameters of a constructor that may still be passed by position
# Classes that are exempt, each with its reason. A NamedTuple is a tuple: Python cannot make its fields keyword-only.
ALLOWED = {
    "kernels/candidate_lists.py: CandidateLists": "a NamedTuple, which compiled code reads",
    "kernels/candidate_lists.py: PackedLists": "a NamedTuple, which its callers unpack",
    "kernels/cooccurrence/pair_counts.py: PairEntries": "a NamedTuple, which its callers unpack",
    "kernels/cosine/pair_search.py: RangeRows": "a NamedTuple, which compiled code reads",
    "model/protocol.py: Channel": "a name and a number come by position and cannot be swapped; the rest by name only",
}


def offenders(source: str) -> Iterator[str]:
    """Yield the classes whose constructors take more than `MOST` parameters, and any of them by position."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            by_position, by_name = parameters(node)
            if by_position and by_position + by_name > MOST:
                yield node.name


def parameters(node: ast.ClassDef) -> tuple[int, int]:
    """Count the parameters of a class's own constructor: those it takes by position, and those by name only."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name in ("__init__", "__new__"):
            arguments = method.args
            return len(arguments.posonlyargs) + len(arguments.args) - 1, len(arguments.kwonlyargs)
    dataclass = next((d for d in node.decorator_list if called(d) == "dataclass"), None)
    if dataclass is None and not any(called(base) == "NamedTuple" for base in node.bases):
        return 0, 0
    by_name = option(dataclass, "kw_only")
    counts = [0, 0]
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        if ast.unparse(field.annotation).endswith("KW_ONLY"):
            by_name = True
        elif option(field.value, "init", default=True):
            counts[by_name or option(field.value, "kw_only")] += 1
    return counts[0], counts[1]


def called(node: ast.expr) -> str:
    """Return the last part of a name or of a called name, as "dataclass" of `@dataclasses.dataclass(frozen=True)`."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def option(node: ast.expr | None, name: str, default: bool = False) -> bool:
    """Return the value that a call gives an option; `default` if it gives none, or if `node` is not a call."""
    for keyword in node.keywords if isinstance(node, ast.Call) else ():
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return bool(keyword.value.value)
    return default


def test_constructors_with_more_than_three_parameters_are_keyword_only() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in PRODUCT
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in offenders(path.read_text())
    }
    assert found - set(ALLOWED) == set(), "add `*` to __init__, or kw_only=True to the dataclass"
    assert set(ALLOWED) - found == set(), "no longer needed in ALLOWED"


FIELDS = "\n".join(f"    {name}: int" for name in "abcd")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class A:\n    def __init__(self, a, b, c, d): ...", ["A"]),
        ("class A:\n    def __init__(self, a, b, *, c, d): ...", ["A"]),
        ("class A:\n    def __init__(self, *, a, b, c, d): ...", []),
        ("class A:\n    def __init__(self, a, b, c): ...", []),
        (f"@dataclass\nclass A:\n{FIELDS}", ["A"]),
        (f"@dataclasses.dataclass(frozen=True)\nclass A:\n{FIELDS}", ["A"]),
        (f"@dataclass(kw_only=True)\nclass A:\n{FIELDS}", []),
        (f"@dataclass\nclass A:\n    _: KW_ONLY\n{FIELDS}", []),
        ("@dataclass\nclass A:\n    a: int\n    b: int\n    c: int\n    d: int = field(init=False)", []),
        ("@dataclass\nclass A:\n    a: int\n    b: int\n    c: int\n    d: ClassVar[int] = 1", []),
        (f"class A(NamedTuple):\n{FIELDS}", ["A"]),
        (f"class A(Protocol):\n{FIELDS}", []),
    ],
)
def test_what_counts_as_a_parameter(source: str, expected: list[str]) -> None:
    assert list(offenders(source)) == expected

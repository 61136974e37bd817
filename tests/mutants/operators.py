"""Small faults in source text: each mutation changes one expression or one statement and nothing else.

Annotations, decorators, docstrings, texts, statements that log, and code for the type checker alone are not mutated.
Such a change is either not a fault, or a fault that no test should look for.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_LOGGERS = {"log", "logger", "logging"}


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One fault.

    Attributes:
        line: the first line of the text that is replaced, counted from 1.
        last_line: its last line.
        before: the text that is replaced.
        after: the text that replaces it.
        source: the whole file with the fault.
    """

    line: int
    last_line: int
    before: str
    after: str
    source: str


def mutations(source: str) -> list[Mutation]:
    """Return every mutation of a file's text, in the order of the text."""
    whole = source.encode()
    # Python counts columns in bytes, and lines from 1: hence the 0 in front.
    starts = [0, *accumulate(map(len, whole.splitlines(keepends=True)), initial=0)]
    found = []
    for node, after in _Finder().of(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = starts[node.lineno] + node.col_offset, starts[node.end_lineno] + node.end_col_offset
        before = whole[start:end].decode()
        mutated = (whole[:start] + after.encode() + whole[end:]).decode()
        lines = {"line": node.lineno, "last_line": node.end_lineno}
        found.append(Mutation(**lines, before=before, after=after, source=mutated))
    return sorted(found, key=lambda one: (one.line, one.before, one.after))


class _Finder:
    """Walks a tree and yields what to replace, a node, and by what text."""

    def of(self, node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.expr):
            yield from ((node, f"({ast.unparse(changed)})") for changed in _changed(node))
        elif isinstance(node, ast.stmt):
            yield from ((node, text) for text in _changed_statement(node, in_function))
        if isinstance(node, ast.If | ast.While | ast.IfExp) and not _is_flipped(node.test):
            yield node.test, f"(not ({ast.unparse(node.test)}))"
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in _children(node):
            yield from self.of(child, inside)


def _is_flipped(node: ast.expr) -> bool:
    """Whether another mutation has the same effect as a `not` before it."""
    return (isinstance(node, ast.Compare) and len(node.ops) == 1) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that are mutated."""
    if isinstance(node, ast.JoinedStr):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text_or_log(child):
                yield child


def _is_text_or_log(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    called = value.func if isinstance(value, ast.Call) else None
    root = called.value if isinstance(called, ast.Attribute) else None
    return isinstance(value, ast.Constant) or (isinstance(root, ast.Name) and root.id in _LOGGERS)


def _changed(node: ast.expr) -> Iterator[ast.expr]:
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[operation]):
            new.ops = [_COMPARISONS[type(operation)]()]
            yield new
        case ast.BinOp(op=operation) if type(operation) in _ARITHMETIC and not _is_text(new):
            new.op = _ARITHMETIC[type(operation)]()
            yield new
        case ast.BoolOp():
            new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
            yield new
        case ast.UnaryOp(op=ast.Not()):
            yield new.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(number)):
            yield ast.Constant(number + 1)
        case ast.Constant(value=float(real)):
            yield ast.Constant(real * 2 if real else 1.0)


def _is_text(node: ast.BinOp) -> bool:
    """Whether it joins or fills texts."""
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _changed_statement(node: ast.stmt, in_function: bool) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "pass"
        case ast.Assign(targets=[target]) if in_function and not isinstance(target, ast.Name | ast.Tuple):
            yield "pass"  # a name that is never assigned would be noticed by any test
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return None"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None

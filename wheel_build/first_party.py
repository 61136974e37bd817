"""Rewrite references to first-party modules in a module's source, from `data.dataset` to `mdsrec.data.dataset`.

Import statements and strings that name a module are rewritten. Python's own parser finds the positions, so the rest of
the source and all line numbers stay as they are. A string that may or may not name a module is refused, with its line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = "mdsrec"
# Functions whose string arguments name modules.
_IMPORTERS = {"import_module", "__import__", "find_spec", "run_module", "resolve_name", "set_forkserver_preload"}
_RESOURCES = {"files", "path", "contents", "get_data", "open_text", "open_binary", "read_text", "read_binary"}
# These packages are also sections of a config, so a knob's name, such as model.mdsrec, looks like a module's.
_ALSO_SECTIONS = {"model", "evaluation"}


class UnknownReference(Exception):
    """A first-party module is referred to in a way that the build does not support; says where and what to write."""


@dataclass(frozen=True)
class Packages:
    """The first-party packages of a checkout.

    Attributes:
        root: the folder that holds the packages.
        names: their top-level names, without `mdsrec`, whose name does not change.
    """

    root: Path
    names: tuple[str, ...]

    def owns(self, module: str) -> bool:
        """Return whether a dotted name begins with one of the packages."""
        return module.partition(".")[0] in self.names

    def is_module(self, module: str) -> bool:
        """Return whether a dotted name is the name of a package or a module."""
        path = self.root.joinpath(*module.split("."))
        return self.owns(module) and (path.is_dir() or path.with_suffix(".py").is_file())

    def defines(self, module: str, name: str) -> bool:
        """Return whether the source of a module binds a name at its top level."""
        path = self.root.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return file.is_file() and name in set(_bound(ast.parse(file.read_text(encoding="utf-8"))))


def relocated(source: str, where: str, packages: Packages) -> str:
    """Return the source of a module as the wheel holds it.

    Args:
        source: the module's source in the checkout.
        where: the module's file, for messages.
        packages: the first-party packages.

    Raises:
        UnknownReference: the source has a reference that the build does not support.
    """
    changed = _with_inserts(source, list(_inserts(ast.parse(source, where), source, where, packages)))
    left = [name for name, _ in _imported(ast.parse(changed, where)) if packages.owns(name)]
    assert not left, f"{where}: still imports {left}"
    return changed


# A byte offset in the source, and the text to insert there.
_Insert = tuple[int, str]


def _with_inserts(source: str, inserts: list[_Insert]) -> str:
    data = source.encode()
    for offset, text in sorted(inserts, reverse=True):
        data = data[:offset] + text.encode() + data[offset:]
    return data.decode()


def _inserts(tree: ast.Module, source: str, where: str, packages: Packages) -> Iterator[_Insert]:
    """Yield all insertions for a module."""
    lines = _Lines(source)
    imports_resources = any(name.startswith(("importlib.resources", "pkgutil")) for name, _ in _imported(tree))
    importers = _IMPORTERS | (_RESOURCES if imports_resources else set())
    settled: set[int] = _docstrings(tree)
    for node in ast.walk(tree):  # a call comes before its arguments, an f-string before its parts
        if isinstance(node, ast.ImportFrom):
            if not node.level and packages.owns(node.module or ""):
                yield lines.after_from(node), f"{HOME}."
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if packages.owns(alias.name):
                    yield from _of_import(alias, lines, where)
        elif isinstance(node, ast.Call) and _name(node.func) in importers:
            for argument in _texts(node):
                settled |= {id(part) for part in ast.walk(argument)}
                yield from _of_named_module(argument, lines, where, packages)
        elif isinstance(node, ast.Subscript) and _name(node.value) == "modules":
            settled.add(id(node.slice))
            yield from _of_named_module(node.slice, lines, where, packages)
        elif isinstance(node, ast.JoinedStr):
            settled |= {id(part) for part in node.values}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in settled:
            yield from _of_text(node, node.value, lines, where, packages)


def _of_import(alias: ast.alias, lines: _Lines, where: str) -> Iterator[_Insert]:
    if alias.asname is None and "." in alias.name:
        raise UnknownReference(
            f"{where}:{alias.lineno}: `import {alias.name}` binds {alias.name.partition('.')[0]}; write "
            f"`from {alias.name.rpartition('.')[0]} import {alias.name.rpartition('.')[2]}`"
        )
    yield lines.start(alias), f"{HOME}."
    if alias.asname is None:
        yield lines.end(alias), f" as {alias.name}"


def _of_named_module(node: ast.expr, lines: _Lines, where: str, packages: Packages) -> Iterator[_Insert]:
    """Yield the insertion for an expression that names a module."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if packages.owns(node.value):
            yield lines.in_text(node, node.value, where), f"{HOME}."
        return
    begins = _beginning(node)
    if begins is not None and packages.owns(begins):
        raise UnknownReference(
            f"{where}:{node.lineno}: a module's name is put together from {begins!r}; begin with the package's own "
            f'name, as in f"{{{begins.partition(".")[0]}.__name__}}.x"'
        )


def _of_text(node: ast.Constant, text: str, lines: _Lines, where: str, packages: Packages) -> Iterator[_Insert]:
    """Yield the insertion for any other string. It may name a module, hold code with a module's name, or neither."""
    names = "|".join(packages.names)
    line = f"{where}:{node.lineno}"
    code = re.search(
        rf"-m\s+({names})\b[\w.]*|^\s*from\s+({names})[\w.]*\s+import\b|^\s*import\s+({names})\b", text, re.M
    )
    if code is not None:
        raise UnknownReference(f"{line}: the text {code[0].strip()!r} names a module; put it together from `__name__`")
    if text.endswith(".") and text[:-1] in set(packages.names) - _ALSO_SECTIONS:
        raise UnknownReference(f"{line}: the text {text!r} begins a module's name; put it together from `__name__`")
    match = re.fullmatch(rf"({names})((?:\.\w+)*)(?::(\w+))?", text)
    if match is None or text == match[1]:  # a bare name, such as "data", is taken as an English word
        return
    module, name = match[1] + match[2], match[3]
    is_module = packages.is_module(module)
    if not is_module and name is None:
        module, _, name = module.rpartition(".")
        is_module = packages.is_module(module) and packages.defines(module, name)
    if not is_module:
        return
    if name is None and match[1] in _ALSO_SECTIONS:
        raise UnknownReference(
            f"{line}: the text {text!r} may be a module or a section of a config; name a module as 'module:attribute', "
            "and put the name of a section together"
        )
    yield lines.in_text(node, text, where), f"{HOME}."


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module's top-level statements bind."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (
                part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            )


def _imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the modules that absolute imports name, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or "", node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def _docstrings(tree: ast.Module) -> set[int]:
    """Return the ids of expressions that are statements of their own, such as docstrings."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _texts(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the arguments of a call, and for a list or a tuple its elements."""
    for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
        yield from argument.elts if isinstance(argument, ast.List | ast.Tuple) else (argument,)


def _beginning(node: ast.expr) -> str | None:
    """Return the string that an f-string or a sum begins with; None if it begins otherwise."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return _beginning(node.values[0])
    if isinstance(node, ast.BinOp):
        return _beginning(node.left)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _name(node: ast.expr) -> str:
    """Return the last part of a name, such as "import_module" of `importlib.import_module`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


class _Lines:
    """Byte offsets of syntax nodes in a source. Python's parser counts lines from 1, and columns in bytes of UTF-8."""

    def __init__(self, source: str) -> None:
        self._data = source.encode()
        self._starts = [0]
        for line in self._data.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def start(self, node: ast.stmt | ast.expr | ast.alias) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.alias | ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def after_from(self, node: ast.ImportFrom) -> int:
        """Return the offset of the module's name in `from MODULE import ...`."""
        match = re.compile(rb"from[\s\\]+").match(self._data, self.start(node))
        assert match is not None
        return match.end()

    def in_text(self, node: ast.Constant, text: str, where: str) -> int:
        """Return the offset where the content of a plain string literal begins.

        Raises:
            UnknownReference: the string is not written as one plain literal.
        """
        start = self.start(node)
        written = self._data[start : self.end(node)].decode()
        if written not in (f'"{text}"', f"'{text}'"):
            raise UnknownReference(f"{where}:{node.lineno}: names the module {text}; write it as one plain literal")
        return start + 1

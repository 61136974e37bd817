"""Draw damaged copies of files with hypothesis: bytes are changed, removed, added or exchanged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, contents: dict[str, bytes]) -> dict[str, bytes]:
    """Draw files that differ from `contents` in one file, or in two files that were exchanged."""
    name = draw(st.sampled_from(sorted(contents)))
    content = contents[name]
    kind = draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "remove", "zero", "repeat", "exchange"]))
    if kind == "exchange" and len(contents) > 1:
        other = draw(st.sampled_from(sorted(set(contents) - {name})))
        return contents | {name: contents[other], other: content}
    first = draw(st.integers(0, max(len(content) - 1, 0)))
    last = min(len(content), first + draw(st.integers(1, 64)))
    changed = {
        "flip": lambda: _flipped(content, first, draw(st.integers(1, 255))),
        "cut": lambda: content[:first],
        "insert": lambda: content[:first] + draw(st.binary(min_size=1, max_size=9)) + content[first:],
        "remove": lambda: content[:first] + content[last:],
        "zero": lambda: content[:first] + bytes(last - first) + content[last:],
        "repeat": lambda: content[:last] + content[first:],
        "exchange": lambda: content + content,
    }
    return contents | {name: changed[kind]()}


def _flipped(content: bytes, place: int, mask: int) -> bytes:
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :] if content else b"\0"


@contextmanager
def folder_of(contents: dict[str, bytes]) -> Iterator[Path]:
    """Create a temporary folder with these files."""
    with tempfile.TemporaryDirectory() as name:
        for file, content in contents.items():
            (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / file).write_bytes(content)
        yield Path(name)


def made(write: Callable[[Path], Any]) -> dict[str, bytes]:
    """Return the files that a function writes to a folder, by name."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        files = [path for path in sorted(Path(name).rglob("*")) if path.is_file()]
        return {str(path.relative_to(name)): path.read_bytes() for path in files}

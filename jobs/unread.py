"""Let a job run to its end after the reader of its output has closed the pipe, as `| head -1` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Stream:
    """A text stream that is redirected to /dev/null when its reader closes the pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._redirect()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._redirect()

    def _redirect(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def closed_output_ignored() -> Iterator[None]:
    """Ignore, within the block, that a reader has closed standard output or standard error."""
    before = sys.stdout, sys.stderr
    out, err = _Stream(sys.stdout), _Stream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        out.flush()  # now, because Python's own flush at exit would print an error
        err.flush()
        sys.stdout, sys.stderr = before

"""Prints lines for the user from any process of a job, including ranks that Ray has started.

Ray sends everything that its workers print to the process that started the job, including lines of Ray and of other
libraries. So a Ray worker marks the lines that are meant for the user, and `distributed/ray/relay.py` shows only
those.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Kind = Literal["out", "err", "bar", "end"]

MARK = "mdsrec-line:"
_BAR_SECONDS = 0.5  # between two updates of a progress bar that a Ray worker sends
# The user sees the warnings of these packages, and not those of other libraries.
_OWN_PACKAGES = (
    "configs", "contracts", "data", "distributed", "evaluation", "experiments", "graph_builder", "kernels", "model",
    "serving", "storage",
)  # fmt: skip

_is_marked = False
_speaker = ""
_verbose = False


def set_verbose(wanted: bool) -> None:
    """Set whether Ray's own lines are shown too."""
    global _verbose
    _verbose = wanted


def is_verbose() -> bool:
    """Return the value that `set_verbose` set last; False before its first call."""
    return _verbose


def say(text: str, to: Literal["out", "err"] = "out") -> None:
    """Print lines for the user, from any process of a job: to the job's standard output or error."""
    lines = [f"{_speaker}{line}" for line in text.splitlines()]
    if _is_marked:
        _send(to, *lines)
    else:
        show("\n".join(lines), to)


def show(text: str, to: Literal["out", "err"]) -> None:
    """Print in this process, above a progress bar if there is one."""
    stream = sys.stdout if to == "out" else sys.stderr
    tqdm.write(text, file=stream)
    stream.flush()


@contextmanager
def speaking_as(name: str) -> Iterator[None]:
    """Within this context, each line that this process prints with `say` begins with the given name."""
    global _speaker
    before, _speaker = _speaker, f"{name}: "
    try:
        yield
    finally:
        _speaker = before


def mark_lines() -> None:
    """From now on mark the lines of `say` and the warnings of this project's packages; for a Ray worker."""
    global _is_marked
    _is_marked = True
    handler = _Marking()
    for name in _OWN_PACKAGES:
        logging.getLogger(name).handlers = [handler]


def keep_own_warnings() -> None:
    """Show warnings of this project's packages, also if the root logger shows errors only."""
    for name in _OWN_PACKAGES:
        logging.getLogger(name).setLevel(logging.WARNING)


def end_lines() -> None:
    """Tell the job's process that this Ray worker sends no more lines."""
    _send("end", "")


def local_bar(loop: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """Show a progress bar on this process's terminal until the loop ends; a `telemetry.Track`."""
    return tqdm(loop, total=total, desc=label, unit="step", leave=False, dynamic_ncols=True)


def distant_bar(loop: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Send the state of a progress bar to the job's process, which draws it; a `telemetry.Track` for a Ray worker."""
    sent = 0.0
    try:
        for done, item in enumerate(loop):
            if time.monotonic() - sent >= _BAR_SECONDS:
                sent = time.monotonic()
                _send("bar", json.dumps({"label": label, "done": done, "total": total}))
            yield item
    finally:
        _send("bar", json.dumps({"label": label, "done": total, "total": total}))


class _Marking(logging.Handler):
    """Prints each warning with `say`."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), "err")


def _send(kind: Kind, *lines: str) -> None:
    # One write for all, so that other output cannot come between a line and its end.
    sys.stdout.write("".join(f"{MARK}{kind} {line}\n" for line in lines))
    sys.stdout.flush()

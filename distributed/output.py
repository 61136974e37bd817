"""The lines of a job, from whichever process: a rank under Ray prints into the output of its job.

Ray sends what its workers print to the process that started the job. Lines of Ray and of other libraries are among
them. So a Ray worker marks the lines that are meant for the user; `distributed/ray/relay.py` shows the marked ones.
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
_BAR_SECONDS = 0.5  # between two states of a bar that a Ray worker sends
# Warnings of these reach the user; other libraries' do not.
_OWN_PACKAGES = (
    "configs", "contracts", "data", "distributed", "evaluation", "experiments", "graph_builder", "kernels", "model",
    "storage",
)  # fmt: skip

_is_marked = False
_speaker = ""
_verbose = False


def set_verbose(wanted: bool) -> None:
    """Whether Ray's own lines are shown too."""
    global _verbose
    _verbose = wanted


def is_verbose() -> bool:
    """What `set_verbose` was told last; False before."""
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
    """Within, each line of this process begins with this name."""
    global _speaker
    before, _speaker = _speaker, f"{name}: "
    try:
        yield
    finally:
        _speaker = before


def mark_lines() -> None:
    """This process is a Ray worker: mark what it says, and the warnings of this project's packages."""
    global _is_marked
    _is_marked = True
    handler = _Marking()
    for name in _OWN_PACKAGES:
        logging.getLogger(name).handlers = [handler]


def keep_own_warnings() -> None:
    """Warnings of this project's packages are shown, whatever level other libraries are given."""
    for name in _OWN_PACKAGES:
        logging.getLogger(name).setLevel(logging.WARNING)


def end_lines() -> None:
    """Tell the job's process that this Ray worker has said all it has to say."""
    _send("end", "")


def local_bar(loop: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """A `telemetry.Track` on this process's terminal: rate and time left; gone when the loop ends."""
    return tqdm(loop, total=total, desc=label, unit="step", leave=False, dynamic_ncols=True)


def distant_bar(loop: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """A `telemetry.Track` of a Ray worker, drawn by the job's process."""
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
    """Says a warning as a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), "err")


def _send(kind: Kind, *lines: str) -> None:
    # In one write, so that nothing comes between a line and its end.
    sys.stdout.write("".join(f"{MARK}{kind} {line}\n" for line in lines))
    sys.stdout.flush()

"""SIGTERM and Ctrl-C ask a training for a last checkpoint; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed.checkpoints.run_storage import RunStorage
from distributed.interruption import STOP_FILE, STOPPED_FILE

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ANSWER = (
    b"\nstopping: a checkpoint is written after the current step, then this command ends with status 75; "
    b"a second Ctrl-C or SIGTERM ends it at once\n"
)


@contextmanager
def stopping_on_signals(storage: RunStorage, then: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within, a signal asks training to write a checkpoint and end, by the file `stop` in the run's folder.

    Args:
        then: called after that, by the signal's handler.
    """
    for name in (STOP_FILE, STOPPED_FILE):
        storage.discard(name)

    def ask() -> None:
        storage.local.mkdir(parents=True, exist_ok=True)
        (storage.local / STOP_FILE).touch()
        storage.push([STOP_FILE])
        then()

    try:
        with first_signal(ask):
            yield
    finally:
        storage.discard(STOP_FILE)  # it came after the last step; a training that it stopped has renamed it


@contextmanager
def first_signal(ask: Callable[[], None]) -> Iterator[None]:
    """Within, the first SIGTERM or SIGINT (Ctrl-C) says so and calls `ask`; the second one ends this process.

    Enter it after `ray.init`, which installs a handler of its own for SIGTERM.
    """

    def answer(number: int, frame: object) -> None:  # noqa: ARG001
        for name in _SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        os.write(2, _ANSWER)  # print may be interrupted by this very handler, and would raise
        ask()

    before = {name: signal.signal(name, answer) for name in _SIGNALS}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)

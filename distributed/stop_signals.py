"""Makes SIGTERM and Ctrl-C stop a training after a last checkpoint; a second signal ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed.checkpoints.run_storage import RunStorage
from distributed.stop_agreement import STOP_FILE, STOPPED_FILE

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ANSWER = (
    b"\nstopping: a checkpoint is written after the current step, then this command ends with status 75; "
    b"a second Ctrl-C or SIGTERM ends it at once\n"
)


@contextmanager
def stopping_on_signals(storage: RunStorage, then: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within this context, the first signal stops the training after a checkpoint.

    The signal's handler writes the file `stop` into the run's folder, where rank 0 finds it.

    Args:
        storage: the run's folder.
        then: the handler calls this after it has written the file.
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
        # A training that was stopped has renamed the file. If it still exists, it was written after the last step.
        storage.discard(STOP_FILE)


@contextmanager
def first_signal(ask: Callable[[], None]) -> Iterator[None]:
    """Within this context, the first SIGTERM or SIGINT (Ctrl-C) calls `ask`; the second one ends this process.

    The first signal also prints what will happen. Enter this context after `ray.init`, which installs its own handler
    for SIGTERM.
    """

    def answer(number: int, frame: object) -> None:  # noqa: ARG001
        for name in _SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        os.write(2, _ANSWER)  # not print, which raises if the signal has interrupted another print
        ask()

    before = {name: signal.signal(name, answer) for name in _SIGNALS}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)

"""Shows the lines of this project's workers in the process that started the job, and hides those of Ray."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import worker as ray_worker
from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher
from tqdm import tqdm

from contracts.errors import InputError
from contracts.terminal import shows_bars
from distributed.output import MARK, show

# The name under which Ray registers its own printing handler, and removes it at shutdown.
_HANDLER = "ray_print_logs"


class Relay:
    """Prints the marked lines (`distributed/output.py`) among those of Ray's workers, and draws the progress bar.

    Attributes:
        ended: an event that is set when rank 0 has reported that it sends no more lines.
    """

    def __init__(self, verbose: bool) -> None:
        """Choose what happens to lines without a mark.

        Args:
            verbose: whether they are printed as Ray prints them. Otherwise they are only in Ray's log files.
        """
        self.ended = threading.Event()
        self._verbose = verbose
        self._bar: tqdm[Any] | None = None

    def __call__(self, data: dict[str, Any]) -> None:
        """Handle a batch of lines of one process: a dict with `lines` and with fields that Ray adds."""
        foreign = []
        for line in data["lines"]:
            if line.startswith(MARK):
                kind, _, text = line.removeprefix(MARK).partition(" ")
                self._take(kind, text)
            else:
                foreign.append(line)
        if self._verbose and foreign:
            with tqdm.external_write_mode(file=sys.stderr):
                ray_worker.print_to_stdstream({**data, "lines": foreign}, ignore_prefix=False)

    def _take(self, kind: str, text: str) -> None:
        if kind == "end":
            self.ended.set()
        elif kind == "bar":
            self._draw(**json.loads(text))
        elif kind == "err":
            show(text, "err")
        else:
            show(text, "out")

    def _draw(self, label: str, done: int, total: int) -> None:
        if self._bar is not None and (self._bar.desc.removesuffix(": ") != label or done >= total):
            self._bar.close()
            self._bar = None
        if done >= total or not shows_bars():
            return
        if self._bar is None:
            self._bar = tqdm(
                desc=label, total=total, unit="step", leave=False, dynamic_ncols=True, initial=done, file=sys.stderr
            )
        self._bar.update(done - self._bar.n)


_relay: Relay | None = None


def show_own_lines(verbose: bool) -> None:
    """From now on print only this project's lines of the connected Ray, or with `verbose` also all others."""
    global _relay
    _relay = Relay(verbose)
    dispatcher.remove_handler(_HANDLER)
    dispatcher.add_handler(_HANDLER, _relay)
    # This also hides what Ray prints without its dispatcher, such as errors that its scheduler reports.
    ray_worker._worker_logs_enabled = verbose


def is_installed() -> bool:
    """Return whether `show_own_lines` was called for the connected Ray."""
    return any(handler is _relay for name, handler in dispatcher.handlers if name == _HANDLER)


def expect_end() -> threading.Event:
    """Return an event that is set when rank 0's last line has arrived. Call this before the ranks start."""
    ended = _relay.ended if _relay else threading.Event()
    ended.clear()
    return ended


@contextmanager
def naming_ray_logs() -> Iterator[None]:
    """Within this context, print where Ray's logs are after any error but an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception:
        show(ray_logs(), "err")
        raise


def ray_logs() -> str:
    """Return a line that says where the connected Ray writes its logs: a folder on each of its machines."""
    node = ray_worker._global_node
    folder = node.get_logs_dir_path() if node else "/tmp/ray/session_latest/logs of the head node"
    return f"Ray's own logs are in {folder}; --verbose shows them while a job runs"

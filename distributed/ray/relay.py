"""What Ray sends of its workers' output, in the process that started the job: our lines are shown, Ray's are not."""

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

# The name under which Ray enters its own printing, and takes it back when it shuts down.
_HANDLER = "ray_print_logs"


class Relay:
    """Shows the marked lines (`distributed/output.py`) among those that Ray's workers print, and draws their bar.

    Attributes:
        ended: set when rank 0 has said that no more lines come.
    """

    def __init__(self, verbose: bool) -> None:
        """`verbose`: the other lines are shown as Ray shows them; else they are left in Ray's files."""
        self.ended = threading.Event()
        self._verbose = verbose
        self._bar: tqdm[Any] | None = None

    def __call__(self, data: dict[str, Any]) -> None:
        """Take a batch of lines of one process: `lines`, and what Ray adds to them."""
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
    """From now on the connected Ray prints our lines alone, or with `verbose` all that it prints itself."""
    global _relay
    _relay = Relay(verbose)
    dispatcher.remove_handler(_HANDLER)
    dispatcher.add_handler(_HANDLER, _relay)
    # Also what Ray prints without its dispatcher: the errors that its scheduler reports.
    ray_worker._worker_logs_enabled = verbose


def is_installed() -> bool:
    """Whether the connected Ray prints by `show_own_lines` already."""
    return any(handler is _relay for name, handler in dispatcher.handlers if name == _HANDLER)


def expect_end() -> threading.Event:
    """An event that is set when rank 0's last line has arrived; to be asked for before the ranks start."""
    ended = _relay.ended if _relay else threading.Event()
    ended.clear()
    return ended


@contextmanager
def naming_ray_logs() -> Iterator[None]:
    """An error within that is nobody's input is followed by a line that says where Ray's logs are."""
    try:
        yield
    except InputError:
        raise
    except Exception:
        show(ray_logs(), "err")
        raise


def ray_logs() -> str:
    """A line that says where the connected Ray writes its logs, a folder on each of its machines."""
    node = ray_worker._global_node
    folder = node.get_logs_dir_path() if node else "/tmp/ray/session_latest/logs of the head node"
    return f"Ray's own logs are in {folder}; --verbose shows them while a job runs"

"""Reports which rank hangs and at which line of code, and ends the process so that the run can resume.

Every rank writes heartbeats into the process group's store: its current step and its current line of code. A rank
whose training thread made no progress for `training.stall_seconds` reads all heartbeats and names the ranks that the
others wait for.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from torch.distributed.distributed_c10d import _get_default_store

from distributed.output import say
from distributed.telemetry import Item, Track
from distributed.world import World
from storage.plain_json import json_text

# The function in which a rank on a GPU waits for the collectives of a step.
_WAITS_FOR_COLLECTIVES = "norm_on_host"
# The folder of this project's packages: the checkout (which may hold a virtual environment), or `mdsrec` in
# site-packages.
_ROOT = str(Path(__file__).resolve().parent.parent) + os.sep


@dataclass(kw_only=True)
class Beat:
    """A heartbeat of a rank's training thread.

    Attributes:
        step: the step that the thread works on.
        line: the line of this project's code that the thread executes.
        collective: the torch.distributed function that the thread waits in. "" if it waits in none, and in the
            backward pass, whose collectives do not run in Python.
        silent: seconds since the thread last made progress.
        time: when the heartbeat was written, in seconds since 1970.
    """

    step: int
    line: str
    collective: str
    silent: float
    time: float


class Watchdog:
    """A thread that watches the thread which created it, from the first call of `alive` on; a context manager."""

    def __init__(self, *, world: World, run: Path, seconds: float, end: Callable[[int], object] = os._exit) -> None:
        """Prepare the thread; the first call of `alive` starts it.

        Args:
            world: this rank's place.
            run: the run's folder, into which the stack of every thread is written at a stall.
            seconds: a longer time without a call of `alive` is a stall.
            end: ends this process; called with the exit code.
        """
        self._world, self._run, self._seconds, self._end = world, run, seconds, end
        self._every = min(seconds / 4, 5.0)
        self._watched = threading.get_ident()
        self._step, self._alive_at = 0, time.monotonic()
        self._is_resting = False
        self._done = threading.Event()
        self._store = _get_default_store()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def alive(self, step: int | None = None) -> None:
        """Record that the training thread made progress. It is now at `step` (None: at the same step as before)."""
        self._step, self._alive_at = self._step if step is None else step, time.monotonic()
        if self._thread.ident is None:
            self._thread.start()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Within this context nothing counts as a stall, for work whose time is not bounded. Heartbeats go on."""
        self._is_resting = True
        try:
            yield
        finally:
            self._alive_at = time.monotonic()
            self._is_resting = False

    def watching(self, track: Track) -> Track:
        """Return a `Track` that calls `alive` for each item of a loop and otherwise does what `track` does."""

        def watched(loop: Iterable[Item], total: int, label: str) -> Iterator[Item]:
            for item in track(loop, total, label):
                self.alive()
                yield item

        return watched

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            if self._is_resting:
                self._alive_at = time.monotonic()
            silent = time.monotonic() - self._alive_at
            line, collective = self._place()
            beat = Beat(step=self._step, line=line, collective=collective, silent=silent, time=time.time())
            with suppress(RuntimeError):  # the rank that hosts the store may be the one that was lost
                self._store.set(f"heartbeat/{self._world.rank}", json_text(asdict(beat)))
            if silent > self._seconds:
                self._report(stall_report(self._beats(), self._world.rank, silent, 3 * self._every))
                self._end(os.EX_TEMPFAIL)  # this exit code says that another attempt may succeed
                return

    def _report(self, text: str) -> None:
        say(text, "err")
        folder = self._run / "stalls"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"rank-{self._world.rank}.txt").open("w") as file:
            file.write(text + "\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)

    def _beats(self) -> list[Beat | None]:
        """Return the latest heartbeat of every rank, by rank; None for a rank that has written none."""
        found: list[Beat | None] = [None] * self._world.size
        for rank in range(self._world.size):
            key = f"heartbeat/{rank}"
            with suppress(RuntimeError):
                if self._store.check([key]):
                    found[rank] = Beat(**json.loads(self._store.get(key)))
        return found

    def _place(self) -> tuple[str, str]:
        """Return the watched thread's innermost line in this project, and the collective that it waits in."""
        frame = sys._current_frames().get(self._watched)
        stack = traceback.extract_stack(frame) if frame else []
        inside = [f for f in stack if f.filename.startswith(_ROOT)]
        ours = [f for f in inside if "site-packages" not in f.filename.removeprefix(_ROOT)]
        collectives = [f.name for f in stack if f.filename.endswith("distributed_c10d.py") and f.name != "wrapper"]
        collectives += [f.name for f in ours if f.name == _WAITS_FOR_COLLECTIVES]
        if not ours:
            return "unknown", ""
        line = f"{os.path.relpath(ours[-1].filename, _ROOT)}:{ours[-1].lineno} {ours[-1].name}"
        return line, collectives[0] if collectives else ""


def stall_report(beats: Sequence[Beat | None], rank: int, silent: float, late: float) -> str:
    """Return a few lines for the user: where each rank is, which one the others wait for, and what happens next.

    Args:
        beats: the latest heartbeat of every rank, by rank; None for a rank that has written none.
        rank: the rank that reports.
        silent: seconds since that rank made progress.
        late: a rank whose heartbeat is older than this many seconds counts as lost.
    """
    lines = [f"rank {rank}: no progress for {silent:.0f} s (training.stall_seconds)."]
    now = max(beat.time for beat in beats if beat)
    latest = max(beat.step for beat in beats if beat)
    in_collective = any(beat.collective for beat in beats if beat)
    for other, beat in enumerate(beats):
        if beat is None or now - beat.time > late:
            last = "no heartbeat so far"
            if beat is not None:
                last = f"last heartbeat {now - beat.time:.0f} s ago, at step {beat.step}, {beat.line}"
            lines.append(f"  rank {other}: {last}; its process or machine is lost <- the others wait for it")
            continue
        culprit = beat.step < latest or (in_collective and not beat.collective)
        where = f"step {beat.step}, {beat.line}" + (f", waiting in {beat.collective}" if beat.collective else "")
        lines.append(f"  rank {other}: {where}{' <- the others wait for it' if culprit else ''}")
    lines.append(
        "This rank ends. Ray starts the ranks again, cluster.max_failures times at most; a run without Ray continues "
        "when its command is repeated. Both continue from the latest checkpoint."
    )
    return "\n".join(lines)

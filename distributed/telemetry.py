"""Writes metrics.jsonl, TensorBoard events and one line per epoch of a training, on rank 0 only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contracts.errors import InputError
from distributed import output
from distributed.world import World
from storage.durable_files import append_line, write_text
from storage.plain_json import json_text

Item = TypeVar("Item")
_PACKAGES = ("torch", "torchrec", "ray", "numpy", "pyarrow")


class Track(Protocol):
    """Wraps a loop and may show its progress; yields the loop's items unchanged."""

    def __call__(self, loop: Iterable[Item], total: int, label: str) -> Iterable[Item]: ...


def unwatched(loop: Iterable[Item], total: int, label: str) -> Iterable[Item]:  # noqa: ARG001
    """Return the loop itself: the `Track` of a process without a terminal."""
    return loop


class Telemetry:
    """Appends records to RUN/metrics.jsonl and RUN/tensorboard; does nothing on ranks other than 0.

    Without the package tensorboard, only metrics.jsonl is written.

    A run that resumes repeats the steps after its checkpoint, so records of later epochs are removed at the start.
    """

    def __init__(self, *, run: str, world: World, resumed_step: int, epochs: int) -> None:
        self.path = Path(run) / "metrics.jsonl"
        self.active = world.is_first
        if self.active:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for number, line in enumerate(self._lines(), 1) if self._epoch(number, line) <= epochs]
            write_text(self.path, "".join(line + "\n" for line in kept))
            self.board = _board(Path(run) / "tensorboard", resumed_step + 1)

    def record(self, step: int, **values: Any) -> None:
        """Append one record: numbers, or dicts of numbers (such as valid={"ndcg@10": ...}).

        The record is on disk when this returns. The checkpoint of the same epoch is written afterwards, so a loss of
        power cannot leave a checkpoint without its record.
        """
        if not self.active:
            return
        append_line(self.path, json_text({"step": step, "time": round(time.time(), 3), **values}))
        if self.board is None:
            return
        for name, value in values.items():
            scalars = {f"{name}/{key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
            for tag, scalar in scalars.items():
                if isinstance(scalar, int | float):
                    self.board.add_scalar(tag, scalar, step)
        self.board.flush()

    def say(self, line: str) -> None:
        """Print a line for the user."""
        if self.active:
            output.say(line)

    def epoch_of(self, step: int | None) -> int | None:
        """Return the epoch (counted from 1) whose record has this step; None if no record has, and on other ranks."""
        records = map(json.loads, self._lines() if self.active else [])
        return next((record["epoch"] for record in records if record["step"] == step), None)

    def close(self) -> None:
        if self.active and self.board is not None:
            self.board.close()

    def _epoch(self, number: int, line: str) -> int:
        """Return the epoch of a record.

        Raises:
            InputError: the line is not a record, so the file was damaged or edited.
        """
        try:
            return int(json.loads(line)["epoch"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{self.path}: line {number} is {line[:40]!r}, expected the JSON record of an epoch; restore the file "
                "from a copy, or delete it (training then continues without the records of earlier epochs)"
            ) from None

    def _lines(self) -> list[str]:
        # A killed process may leave half a line at the end. The epoch of that line will be repeated.
        text = self.path.read_text() if self.path.exists() else ""
        return text.split("\n")[:-1]


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on; of those only that are installed."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _board(folder: Path, purge_step: int) -> Any:
    """Return a writer of TensorBoard events; None if the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)

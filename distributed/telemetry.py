"""What a run says of itself: metrics.jsonl, TensorBoard events, one line per epoch; rank 0 only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch.utils.tensorboard import SummaryWriter

from contracts.errors import InputError
from distributed import output
from distributed.world import World
from storage.durable_files import append_line, write_text
from storage.plain_json import json_text

Item = TypeVar("Item")
_PACKAGES = ("torch", "torchrec", "ray", "numpy", "pyarrow")


class Track(Protocol):
    """Shows how far a loop is, where somebody watches; yields what it is given."""

    def __call__(self, loop: Iterable[Item], total: int, label: str) -> Iterable[Item]: ...


def unwatched(loop: Iterable[Item], total: int, label: str) -> Iterable[Item]:  # noqa: ARG001
    """The `Track` of a process without a terminal."""
    return loop


class Telemetry:
    """Appends records to RUN/metrics.jsonl and RUN/tensorboard; silent on ranks other than 0.

    Records past the epochs that a run resumes after are of steps that will be taken again, and are removed.
    """

    def __init__(self, *, run: str, world: World, resumed_step: int, epochs: int) -> None:
        self.path = Path(run) / "metrics.jsonl"
        self.active = world.is_first
        if self.active:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for number, line in enumerate(self._lines(), 1) if self._epoch(number, line) <= epochs]
            write_text(self.path, "".join(line + "\n" for line in kept))
            self.board = SummaryWriter(str(Path(run) / "tensorboard"), purge_step=resumed_step + 1)

    def record(self, step: int, **values: Any) -> None:
        """One record: numbers, or dicts of numbers (such as valid={"ndcg@10": ...}).

        The record is on disk when this returns. The checkpoint of its epoch is written afterwards, so a loss of power
        cannot leave a checkpoint whose record is missing.
        """
        if not self.active:
            return
        append_line(self.path, json_text({"step": step, "time": round(time.time(), 3), **values}))
        for name, value in values.items():
            scalars = {f"{name}/{key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
            for tag, scalar in scalars.items():
                if isinstance(scalar, int | float):
                    self.board.add_scalar(tag, scalar, step)
        self.board.flush()

    def say(self, line: str) -> None:
        """A line for the person watching."""
        if self.active:
            output.say(line)

    def epoch_of(self, step: int | None) -> int | None:
        """The epoch, from 1 on, whose record was made after `step`; None on other ranks, or where there is none."""
        records = map(json.loads, self._lines() if self.active else [])
        return next((record["epoch"] for record in records if record["step"] == step), None)

    def close(self) -> None:
        if self.active:
            self.board.close()

    def _epoch(self, number: int, line: str) -> int:
        """The epoch of a record.

        Raises:
            InputError: it is no record, so the file was damaged or edited.
        """
        try:
            return int(json.loads(line)["epoch"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{self.path}: line {number} is {line[:40]!r}, expected the JSON record of an epoch; restore the file "
                "from a copy, or delete it (training goes on, without the records of earlier epochs)"
            ) from None

    def _lines(self) -> list[str]:
        # A killed writer may leave half a line at the end; it is of a step that will be taken again.
        text = self.path.read_text() if self.path.exists() else ""
        return text.split("\n")[:-1]


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    return {name: version(name) for name in _PACKAGES}

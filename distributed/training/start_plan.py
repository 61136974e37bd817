"""What a new run begins with, and the table that reports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.text_table import text_table
from distributed.checkpoints.start import START, StartCheckpoint
from distributed.telemetry import Telemetry
from distributed.training.start_weights import Weight, grouped, size_of
from model.recommender import Recommender
from storage.durable_files import write_text

_MOST_ROWS = 40  # of the printed table; start.txt has all


@dataclass(frozen=True, kw_only=True)
class StartPlan:
    """What a new run begins with.

    Attributes:
        source: the checkpoint that weights are loaded from; None: all weights are fresh.
        weights: every weight of the new run.
        unused: the checkpoint's weights that the new model does not have.
        notes: what is allowed and may surprise, a sentence each.
    """

    source: StartCheckpoint | None
    weights: tuple[Weight, ...]
    unused: tuple[Weight, ...]
    notes: tuple[str, ...] = ()

    @property
    def loaded(self) -> set[str]:
        """The names of the weights that are loaded, some of them only the rows of old items."""
        return {weight.name for weight in self.weights if weight.origin.startswith("loaded")}

    def has_epoch_buffers(self, recommender: Recommender) -> bool:
        """Return whether everything that the model computes before each epoch was loaded."""
        return self.loaded >= {f"recommender.{name}" for name in recommender.epoch_buffers}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of the checkpoint, as the progress record of the new run keeps it."""
        return {START: self.source.fingerprint} if self.source else {}

    def announce(self, run: Path, telemetry: Telemetry) -> None:
        """Print the table by modules on rank 0, and write it with every weight to RUN/start.txt."""
        if telemetry.active:
            write_text(run / "start.txt", self.text(by_module=False) + "\n")
        telemetry.say(f"What the run begins with (start.txt has every weight):\n{self.text(by_module=True)}")

    def text(self, by_module: bool) -> str:
        """Return the table: a row for each weight, or for each module whose weights all begin and train alike."""
        lines = []
        if self.source:
            at = f"step {self.source.progress.step}, fingerprint {self.source.fingerprint[:12]}"
            lines.append(f"starting from the best checkpoint of {self.source.run} ({at})")
        every = [*self.weights, *self.unused]
        groups = grouped(every) if by_module else {weight.name: [weight] for weight in every}
        rows: list[tuple[str, str, str, str]] = []
        unused: list[str] = []
        for name, (first, *others) in groups.items():
            if first in self.unused:
                unused.append(name)
            else:
                rows.append((name, size_of([first, *others]), first.origin, first.training))
        shown = rows[:_MOST_ROWS] if by_module else rows
        lines.append(text_table(shown, ["weight", "shape", "at the start", "in training"]))
        if len(shown) < len(rows):
            lines.append(f"and {len(rows) - len(shown)} more rows")
        if unused:
            lines.append(f"not loaded, because this model has no such weight: {', '.join(unused)}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

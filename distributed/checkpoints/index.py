"""What is in a run's checkpoints folder, without reading a tensor: which checkpoints, and where each stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from contracts.errors import InputError

# Names, among fingerprints, the graph of a run that does not train on one and whose scores read it.
RANKING_GRAPH = "ranking_graph"
# int() takes digits of other scripts, and raises above 4,300 of them.
STEP = re.compile(r"[0-9]{1,18}")


@dataclass(kw_only=True)
class Progress:
    """Where a run stands, beside its tensors.

    Attributes:
        step: optimiser steps taken, skipped ones included.
        epoch: epochs completed, each with its validation.
        epoch_steps: steps taken of the epoch under way.
        epoch_targets: targets trained in those.
        epoch_seconds: time they took, over restarts.
        epoch_skipped: of those steps, the ones not taken as their loss or gradient was not finite.
        skipped_in_a_row: skipped steps up to now without one that was taken.
        best_metric: best validation metric so far (None before the first validation).
        best_step: the step it was seen at.
        stale_epochs: validations since then.
        seconds: training time of completed epochs, over restarts.
        fingerprints: of the dataset and graph this run trains on, and of the graph that only its ranking reads.
        world: ranks that wrote it.
        files: SHA-256 of each file of the checkpoint; empty before it is saved.
    """

    step: int = 0
    epoch: int = 0
    epoch_steps: int = 0
    epoch_targets: int = 0
    epoch_seconds: float = 0.0
    epoch_skipped: int = 0
    skipped_in_a_row: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    stale_epochs: int = 0
    seconds: float = 0.0
    fingerprints: dict[str, str] = field(default_factory=dict)
    world: int = 1
    files: dict[str, str] = field(default_factory=dict)


class DamagedCheckpoint(InputError):
    """A checkpoint that the index names and that is not there, or whose progress.json cannot be read."""


_StepNumber = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass
class _Index:
    """checkpoints/index.json: steps by role; there is no best one before the first validation."""

    latest: _StepNumber
    best: _StepNumber | None = None


def find_checkpoint(run: str, which: str, fingerprints: Mapping[str, str]) -> tuple[Path, Progress]:
    """The folder of checkpoint "latest", "best" or a step of a run, and where it stood. No collective.

    Raises:
        DamagedCheckpoint: its folder is gone, or its progress.json is not what `Checkpoints.save` writes.
        InputError: the run has no checkpoints or no readable index of them, or not that one (names those there
            are), or it was trained on another dataset or graph than `fingerprints` say.
    """
    folder = Path(run) / "checkpoints"
    index = _read_index(run, folder / "index.json")
    is_step = STEP.fullmatch(which) is not None
    step = {"latest": index.latest, "best": index.best}.get(which, int(which) if is_step else None)
    if step is None and which == "best":
        raise InputError(
            f"--checkpoint best: run {run} was not validated yet; name latest, or one of {steps_in(folder)}"
        )
    if step is None or (is_step and not step_folder(folder, step).exists()):
        raise InputError(f"--checkpoint {which[:80]}: run {run} has latest, best and steps {steps_in(folder)}")
    path = step_folder(folder, step)
    progress = read_progress(path, step)
    for what, fingerprint in fingerprints.items():
        found = progress.fingerprints.get(what)
        if found == fingerprint or (what == RANKING_GRAPH and found is None):  # earlier versions did not record it
            continue
        verb, noun = ("validated with", "graph") if what == RANKING_GRAPH else ("trained on", what)
        raise InputError(
            f"run {run}: was {verb} {noun} {_short(found)}, and the one given is {_short(fingerprint)} "
            f"(the first digits of the fingerprints in their manifest.json); give the {noun} it began with, or train a "
            "new run"
        )
    return path, progress


def _read_index(run: str, path: Path) -> _Index:
    try:
        return TypeAdapter(_Index).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise InputError(f"run {run}: has no checkpoint ({path} is not there); train it with jobs/train.py") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); restore it from a copy, or write "
            f'{{"latest": STEP, "best": STEP}} with steps of {steps_in(path.parent)}'
        ) from None


def _reason(error: OSError | ValueError) -> str:
    """The first thing wrong with a file, with the field it is wrong in."""
    if not isinstance(error, ValidationError):
        return getattr(error, "strerror", None) or str(error)
    problem = error.errors(include_url=False)[0]
    return ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))


def steps_in(folder: Path) -> list[int]:
    """The steps that a folder has checkpoints of, ascending."""
    return steps_of(path.name for path in folder.glob("step-*"))


def steps_of(names: Iterable[str]) -> list[int]:
    """The steps that folders of these names are checkpoints of, ascending."""
    return sorted(int(name[5:]) for name in names if name.startswith("step-") and STEP.fullmatch(name[5:]))


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def read_progress(path: Path, step: int) -> Progress:
    """Where the checkpoint in a folder stood.

    Raises:
        DamagedCheckpoint: the folder is gone, or its progress.json is not what `Checkpoints.save` writes.
    """
    try:
        progress = TypeAdapter(Progress).validate_json((path / "progress.json").read_bytes(), strict=True)
        if progress.step != step:
            raise ValueError(f"it is of step {progress.step}, the folder of step {step}")
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{path}: progress.json cannot be read ({_reason(error)}); use another --checkpoint"
        ) from None
    return progress


def _short(fingerprint: str | None) -> str:
    return "none" if fingerprint is None else fingerprint[:12]

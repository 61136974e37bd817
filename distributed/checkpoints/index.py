"""Finds the checkpoints of a run and reads their progress records, without reading a tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from contracts.errors import InputError
from distributed.checkpoints.progress import Progress

# The key, among fingerprints, of a graph that only ranking reads and training does not.
RANKING_GRAPH = "ranking_graph"
_ENCODER = "encoder_of_"  # begins the keys of the labels of encoders
_FEATURE = "feature_of_"  # begins the keys of the features of modules


def encoder_key(modality: str) -> str:
    """Return the key, among fingerprints, of the label of a modality's encoder (`data.encoding.facts.label_of`)."""
    return f"{_ENCODER}{modality}"


def feature_key(module: str) -> str:
    """Return the key, among fingerprints, of the feature that a module belongs to (`Recommender.module_features`)."""
    return f"{_FEATURE}{module}"


# Checked before int(), which accepts digits of other scripts and raises for more than 4,300 digits.
STEP = re.compile(r"[0-9]{1,18}")


class DamagedCheckpoint(InputError):
    """The error for a checkpoint whose folder is gone although the index names it, or whose progress.json is bad."""


_StepNumber = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass
class Index:
    """The content of checkpoints/index.json: the steps of two checkpoints.

    Attributes:
        latest: the step of the latest checkpoint.
        best: the step of the checkpoint with the best validation; None before the first validation.
    """

    latest: _StepNumber
    best: _StepNumber | None = None


def find_checkpoint(run: str, which: str, fingerprints: Mapping[str, str]) -> tuple[Path, Progress]:
    """Return the folder of a checkpoint and its progress record. Not a collective.

    Args:
        run: the run's local folder.
        which: "latest", "best" or a step.
        fingerprints: the fingerprints of the opened dataset and graph. The checkpoint must record the same.

    Raises:
        DamagedCheckpoint: the folder is gone, or its progress.json is not one that `Checkpoints.save` writes.
        InputError: the run has no checkpoints, no readable index of them, or not the requested one (the message lists
            the existing ones); or the run was trained on another dataset or graph.
    """
    folder = Path(run) / "checkpoints"
    index = read_index(run, folder / "index.json")
    is_step = STEP.fullmatch(which) is not None
    step = {"latest": index.latest, "best": index.best}.get(which, int(which) if is_step else None)
    if step is None and which == "best":
        raise InputError(
            f"--checkpoint best: run {run} was not validated yet; name latest, or one of the steps {steps_in(folder)}"
        )
    if step is None or (is_step and not step_folder(folder, step).exists()):
        raise InputError(
            f"--checkpoint {which[:80]}: run {run} does not have it; name latest, best, or one of the steps "
            f"{steps_in(folder)}"
        )
    path = step_folder(folder, step)
    progress = read_progress(path, step)
    for what, fingerprint in fingerprints.items():
        found = progress.fingerprints.get(what)
        if found == fingerprint or (what == RANKING_GRAPH and found is None):  # earlier versions did not record it
            continue
        verb, noun = ("validated with", "graph") if what == RANKING_GRAPH else ("trained on", what)
        lists = "; a list of datasets has one of its own, which depends on their order" if noun == "dataset" else ""
        raise InputError(
            f"run {run}: was {verb} {noun} {_short(found)}, but the given {noun} is {_short(fingerprint)} "
            f"(first digits of the fingerprint in manifest.json{lists}); give the {noun} that the run was {verb}, or "
            "train a new run"
        )
    return path, progress


def read_index(run: str, path: Path) -> Index:
    """Read index.json of a run's checkpoints. Raises InputError if it is missing or not an index."""
    try:
        return TypeAdapter(Index).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise InputError(f"run {run}: has no checkpoint ({path} is not there); train it with jobs/train.py") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); restore it from a copy, or write "
            f'{{"latest": STEP, "best": STEP}} with steps of {steps_in(path.parent)}'
        ) from None


def _reason(error: OSError | ValueError) -> str:
    """Return the first error in a file, and the field that has it."""
    if not isinstance(error, ValidationError):
        return getattr(error, "strerror", None) or str(error)
    problem = error.errors(include_url=False)[0]
    return ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, ascending."""
    return steps_of(path.name for path in folder.glob("step-*"))


def steps_of(names: Iterable[str]) -> list[int]:
    """Return the steps in the names of checkpoint folders, ascending; other names are left out."""
    return sorted(int(name[5:]) for name in names if name.startswith("step-") and STEP.fullmatch(name[5:]))


def step_folder(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return folder / f"step-{step:08d}"


def read_progress(path: Path, step: int) -> Progress:
    """Read the progress record of the checkpoint in a folder.

    Raises:
        DamagedCheckpoint: the folder is gone, or its progress.json is not one that `Checkpoints.save` writes for this
            step.
    """
    try:
        progress = TypeAdapter(Progress).validate_json((path / "progress.json").read_bytes(), strict=True)
        if progress.step != step:
            raise ValueError(f"its step is {progress.step}, but its folder is of step {step}")
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{path}: progress.json cannot be read ({_reason(error)}); use another --checkpoint"
        ) from None
    return progress


def _short(fingerprint: str | None) -> str:
    return "none" if fingerprint is None else fingerprint[:12]

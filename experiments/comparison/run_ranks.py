"""Finds the file with the ranks of a run's result, and says whether the ranks of two results can be compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from contracts.errors import InputError
from distributed.checkpoints.run_storage import RunStorage
from evaluation.saved_ranks import RankFacts, SavedRanks, open_ranks, ranks_path

METRICS_FILE = "metrics.json"
RESULT_FILE = re.compile(r"metrics\.json|evaluation-[^/]+\.json")
# `jobs/evaluate.py --run RUN` writes this file with the settings and the checkpoint of metrics.json.
_SAME_AS_METRICS = "evaluation-best.json"
# Which items compete with a target, and what a tie counts. The other settings belong to a system's own score.
_COMMON_SETTINGS = ("mask_history", "ties")


def find_ranks(run: str, split: str, result: str = METRICS_FILE) -> SavedRanks | None:
    """Return the ranks that belong to a result file of a run; None if they were not saved.

    Runs of earlier versions have no ranks. `jobs/evaluate.py` writes them for the best checkpoint, so the ranks of
    evaluation-best.json stand for those of metrics.json.

    Args:
        run: the run's folder or URI. For a URI the files are downloaded.
        split: "valid" or "test".
        result: the result file's name.

    Raises:
        InputError: the run has no such result, or a file cannot be read.
    """
    storage = RunStorage(run)
    path = storage.fetch(result)
    step = _checkpoint_step(path, run)
    unreadable: InputError | None = None
    for name in dict.fromkeys([result, *([_SAME_AS_METRICS] if result == METRICS_FILE else [])]):
        found = storage.fetch(ranks_path(Path(name), split).name)
        if not found.exists():
            continue
        try:
            opened = open_ranks(found)
        except InputError as error:
            unreadable = error
            continue
        if (opened.facts.split, opened.facts.checkpoint_step) == (split, step):
            return opened
    if unreadable is not None:
        raise unreadable
    return None


def why_not_comparable(one: RankFacts, other: RankFacts) -> str | None:
    """Return, as the end of a sentence, why two files of ranks cannot be compared; None if they can."""
    datasets = [facts.fingerprints.get("dataset", "")[:12] for facts in (one, other)]
    if datasets[0] != datasets[1]:
        return f"were evaluated on different datasets, with fingerprints {datasets[0]} and {datasets[1]}"
    for name in _COMMON_SETTINGS:
        values = [json.dumps(facts.settings.get(name)).strip('"') for facts in (one, other)]
        if values[0] != values[1]:
            return f"were ranked with different settings, evaluation.{name}={values[0]} and {values[1]}"
    return None


def _checkpoint_step(path: Path, run: str) -> int | None:
    """Return the step of the checkpoint that a result file is of; None for a model that is not trained.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        step = content.get("best_step") if path.name == METRICS_FILE else content["checkpoint_step"]
    except FileNotFoundError:
        raise InputError(f"run {run}: has no {path.name}; {_how_to_write(path.name)}") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error!r}); {_how_to_write(path.name)}") from None
    return None if step is None else int(step)


def _how_to_write(result: str) -> str:
    if result == METRICS_FILE:
        return "name a run folder whose training by jobs/train.py has ended"
    return "write it with jobs/evaluate.py and the settings that its name states"

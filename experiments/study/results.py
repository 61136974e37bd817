"""Read the results of a study's trials from their run folders, and average them over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.strict_yaml import read_yaml
from contracts.errors import InputError
from evaluation.result_settings import score_settings
from experiments.study.definition import Trial


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A finished trial.

    Attributes:
        variant: the variant's name.
        seed: the trial's seed.
        overrides: the variant's knobs and values.
        valid: metrics of the best checkpoint on valid.
        test: metrics of the best checkpoint on test.
        intervals: for each test metric, the run's 95% bootstrap interval over users.
        best_epoch: epoch of the best checkpoint; None for a model that is not trained.
        epochs: the number of epochs trained.
        seconds: duration of all training steps, without evaluation and checkpoints.
        settings: how items were ranked, see `evaluation.result_settings.score_settings`.
        repeat_share: share of the test targets that are in the user's history already; None if it was not counted.
        groups: metrics on test of the targets of each item group, among all items and within the group, by slice.
    """

    variant: str
    seed: int
    overrides: dict[str, Any]
    valid: dict[str, float]
    test: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    best_epoch: int | None
    epochs: int
    seconds: float
    settings: dict[str, Any]
    repeat_share: float | None
    groups: dict[str, dict[str, float]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """A metric, averaged over the seeds of a variant.

    Attributes:
        mean: mean over seeds.
        error: standard error of the mean over seeds; None if there is one seed.
        change: this variant's mean divided by the baseline's mean, minus 1. Both means are over the seeds that both
            have; None if there are none.
    """

    mean: float
    error: float | None
    change: float | None


@dataclass(frozen=True)
class VariantSummary:
    """A variant's finished trials; `estimates` maps a name such as "test recall@20" to its estimate."""

    variant: str
    seeds: tuple[int, ...]
    estimates: dict[str, Estimate]


def trial_folder(study_folder: Path, trial: Trial) -> Path:
    """Return the run folder of a trial."""
    return study_folder / "trials" / trial.name


def is_finished(study_folder: Path, trial: Trial) -> bool:
    """Return whether a trial is finished: its metrics, which are written last, are there."""
    return (trial_folder(study_folder, trial) / "metrics.json").exists()


def read_results(study_folder: Path, trials: Sequence[Trial]) -> list[TrialResult]:
    """Return the results of those trials that are finished, in the order of the trials.

    Raises:
        InputError: a result cannot be read, or a trial was trained with another value of a knob that the study varies.
    """
    return [_read(trial_folder(study_folder, trial), trial) for trial in trials if is_finished(study_folder, trial)]


def read_fingerprints(study_folder: Path, trial: Trial) -> dict[str, str]:
    """Return the fingerprints of a finished trial's inputs: "dataset", and "graph" if the model reads one.

    Raises:
        InputError: the trial's metrics cannot be read.
    """
    path = trial_folder(study_folder, trial) / "metrics.json"
    try:
        return dict(json.loads(path.read_text())["fingerprints"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({error!r}); delete {path.parent} to train this trial again")


def _read(folder: Path, trial: Trial) -> TrialResult:
    config = folder / "config.yaml"
    stored, expected = read_yaml(str(config)), trial.config.model_dump(mode="json")
    for key in trial.overrides:
        if _at(stored, key) != _at(expected, key):
            raise InputError(
                f"{config}: was trained with {key}={_at(stored, key)}, but the study says {_at(expected, key)}; name "
                "another --output, or correct the study file"
            )
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text())
        lines = folder / "metrics.jsonl"
        epochs = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
        best = [epoch["epoch"] for epoch in epochs if epoch["step"] == metrics.get("best_step")]
        return TrialResult(
            variant=trial.variant,
            seed=trial.seed,
            overrides=trial.overrides,
            valid=metrics["valid"],
            test=metrics["test"],
            intervals={name: (low, high) for name, (low, high) in metrics["details"]["test"]["intervals"].items()},
            best_epoch=best[0] if best else None,
            epochs=metrics["epochs"],
            seconds=float(sum(epoch["seconds"] for epoch in epochs)),
            settings=score_settings(trial.config.evaluation),  # the caller has compared them with the folder's
            repeat_share=metrics["details"]["test"].get("repeat_share"),
            groups=_group_slices(metrics["details"]["test"].get("slices", {}), tuple(metrics["test"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None


def _group_slices(slices: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return the metrics of the slices within item groups, and of those of the same targets among all items."""
    within = {name: name.rpartition(", among ")[0] for name in slices if ", among " in name}
    chosen = [name for name in slices if name in within or name in within.values()]
    return {name: {metric: slices[name][metric] for metric in names} for name in chosen}


def _at(tree: Mapping[str, Any], dotted: str) -> Any:
    node: Any = tree
    for part in dotted.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def summarise_variants(results: Sequence[TrialResult], baseline: str | None) -> list[VariantSummary]:
    """Average the results of each variant over its seeds. Variants are in the order of their first results."""
    by_variant: dict[str, dict[int, dict[str, float]]] = {}
    for result in results:
        values = {f"test {k}": v for k, v in result.test.items()} | {f"valid {k}": v for k, v in result.valid.items()}
        for group, found in result.groups.items():
            values |= {f"{group}: {k}": v for k, v in found.items()}
        by_variant.setdefault(result.variant, {})[result.seed] = values
    compared = by_variant.get(baseline or "", {})
    summaries = []
    for variant, by_seed in by_variant.items():
        names = [name for name in next(iter(by_seed.values())) if all(name in values for values in by_seed.values())]
        other = {} if variant == baseline else compared
        estimates = {name: _estimate(name, by_seed, other) for name in names}
        summaries.append(VariantSummary(variant, tuple(by_seed), estimates))
    return summaries


def _estimate(name: str, own: Mapping[int, dict[str, float]], other: Mapping[int, dict[str, float]]) -> Estimate:
    values = np.array([measured[name] for measured in own.values()])
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    shared = [seed for seed in own if name in other.get(seed, {})]
    theirs = sum(other[seed][name] for seed in shared)
    change = sum(own[seed][name] for seed in shared) / theirs - 1 if theirs else None
    return Estimate(float(values.mean()), error, change)

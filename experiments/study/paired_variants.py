"""Compares a study's variants with its baseline, user by user, as far as the trials have saved their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import InputError
from evaluation.paired import Difference
from evaluation.saved_ranks import SavedRanks
from experiments.comparison.comparison_table import comparison_table, explanation
from experiments.comparison.paired_runs import Comparison, System, compare_pair, corrected, shared_seeds
from experiments.comparison.run_ranks import find_ranks, why_not_comparable
from experiments.study.definition import Study, Trial
from experiments.study.results import is_finished, trial_folder

PAIRED_METRICS = ("recall@10", "ndcg@10")


@dataclass(frozen=True, kw_only=True)
class PairedVariants:
    """The comparisons of a study on its test targets.

    Attributes:
        comparisons: of each variant and metric.
        without_ranks: names of the finished trials whose ranks were not saved.
        refused: for each other variant that is not compared, the reason.
    """

    comparisons: list[Comparison]
    without_ranks: list[str]
    refused: dict[str, str]


def compare_variants(study: Study, trials: Sequence[Trial], folder: Path) -> PairedVariants | None:
    """Compare every variant with the baseline over the seeds that both have finished; None without a baseline."""
    if study.baseline is None:
        return None
    systems: dict[str, dict[int, SavedRanks]] = {}
    without_ranks: list[str] = []
    refused: dict[str, str] = {}
    for trial in (trial for trial in trials if is_finished(folder, trial)):
        try:
            found = find_ranks(str(trial_folder(folder, trial)), "test")
        except InputError as error:
            refused[trial.variant] = str(error)
            continue
        if found is None:
            without_ranks.append(trial.name)
        else:
            systems.setdefault(trial.variant, {})[trial.seed] = found
    baseline = System(name=study.baseline, by_seed=systems.pop(study.baseline, {}))
    pairs: dict[str, tuple[tuple[int, ...], tuple[Difference, ...]]] = {}
    for variant, by_seed in systems.items():
        seeds = tuple(seed for seed in by_seed if seed in baseline.by_seed)
        if not seeds or variant in refused:
            continue
        system = System(name=variant, by_seed={seed: by_seed[seed] for seed in seeds})
        try:
            _check_comparable(baseline, system)
            pairs[variant] = (seeds, compare_pair(baseline, system, PAIRED_METRICS))
        except InputError as error:
            refused[variant] = str(error)
    return PairedVariants(
        comparisons=corrected(pairs, len(PAIRED_METRICS)), without_ranks=without_ranks, refused=refused
    )


def section(study: Study, paired: PairedVariants | None) -> list[str]:
    """Return the lines of the section about paired comparisons; none if the study has no baseline or no trials."""
    if paired is None or study.baseline is None:
        return []
    lines = []
    if paired.comparisons:
        table = comparison_table(study.baseline, paired.comparisons, "pipe")
        lines += [table, "", explanation(study.baseline, paired.comparisons)]
    if paired.without_ranks:
        first = paired.without_ranks[0]
        lines += [
            "",
            f"Not compared, because their ranks of single users were not saved: {', '.join(paired.without_ranks)}. "
            f"`python jobs/evaluate.py --run STUDY/trials/{first}` writes those of a trial (STUDY: this folder). "
            "Then give the study's command again with `--report-only`.",
        ]
    for variant, reason in paired.refused.items():
        lines += ["", f"`{variant}` is not compared: {reason}"]
    return ["", f"## Differences from `{study.baseline}` on test", "", *lines] if lines else []


def csv_columns(paired: PairedVariants | None) -> dict[str, dict[str, float]]:
    """Return the numbers of the comparisons for each variant, by the name of their column in results.csv."""
    columns: dict[str, dict[str, float]] = {}
    for found in paired.comparisons if paired is not None else ():
        value = found.difference
        columns.setdefault(found.system, {}).update(
            {
                f"difference {value.metric}": value.difference,
                f"low {value.metric}": value.low,
                f"high {value.metric}": value.high,
                f"p {value.metric}": value.p,
                f"p_holm {value.metric}": found.corrected_p,
            }
        )
    return columns


def _check_comparable(baseline: System, other: System) -> None:
    for one, two in shared_seeds(baseline, other).values():
        reason = why_not_comparable(one.facts, two.facts)
        if reason is not None:
            raise InputError(f"{baseline.name} and {other.name} {reason}")

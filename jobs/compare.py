"""Compare runs user by user: python jobs/compare.py --runs A B C --baseline A"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from configs.evaluation_options import METRICS
from contracts.errors import InputError
from distributed.inference.scoring import SPLITS
from distributed.job_paths import absolute
from evaluation.result_settings import described
from evaluation.saved_ranks import ALL_RANKS, SavedRanks, ranks_path
from experiments.comparison.chosen_groups import choice_in_words, chosen_ranks
from experiments.comparison.comparison_table import comparison_table, explanation
from experiments.comparison.paired_runs import System, compare_pair, corrected, shared_seeds
from experiments.comparison.run_ranks import METRICS_FILE, RESULT_FILE, find_ranks, why_not_comparable
from jobs.cli import NamedPath, job
from storage.paths import expand_home


@dataclass(frozen=True)
class _NamedRun:
    """A run of the command line: its system's name, its folder or URI, and how it was written."""

    name: str
    run: str
    given: str


@click.command()
@click.option(
    "--runs",
    "first_runs",
    type=NamedPath(),
    required=True,
    multiple=True,
    metavar="[NAME=]RUN ...",
    help="two or more run folders of jobs/train.py; runs with the same NAME are seeds of one system",
)
@click.argument("more_runs", type=NamedPath(), nargs=-1, metavar="")
@click.option("--baseline", required=True, metavar="NAME", help="the run or NAME that the others are compared with")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="the targets to compare on")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=("recall@10", "ndcg@10"),
    show_default=True,
    metavar="METRIC",
    help="recall@K or ndcg@K, with any K; may be repeated",
)
@click.option(
    "--result",
    default=METRICS_FILE,
    show_default=True,
    metavar="FILE",
    help="the result file whose ranks are compared, e.g. evaluation-best-mask_history=true.json",
)
@click.option(
    "--targets",
    default=None,
    metavar="GROUP",
    help='compare only on targets of this group: cold, warm, "never trained", or the name of a dataset',
)
@click.option(
    "--among",
    type=click.Choice(["all", "domain", "training"]),
    default="all",
    show_default=True,
    help="items among which a target is ranked: all; domain: those of its own dataset; training: cold items for a cold "
    "target, warm items for a warm one, never trained items for one of those",
)
@job
def main(
    first_runs: tuple[str, ...],
    more_runs: tuple[str, ...],
    baseline: str,
    split: str,
    metrics: tuple[str, ...],
    result: str,
    targets: str | None,
    among: str,
) -> None:
    """Compare runs with a baseline, paired by user: differences, 95% intervals and p-values.

    All runs must have ranked the same targets of the same dataset, with the same evaluation.mask_history and
    evaluation.ties. Nothing is ranked anew: the ranks are those that training and evaluation have saved.
    """
    _check_options(metrics, result)
    runs = _named([*first_runs, *more_runs])
    names = list(dict.fromkeys(run.name for run in runs))
    chosen = _baseline(baseline, runs)
    if len(names) < 2:
        raise InputError(f"--runs: names one system, {names[0]}; name a run of another one too")
    systems = {name: _system(name, [run for run in runs if run.name == name], split, result) for name in names}
    others = [systems[name] for name in names if name != chosen]
    ranks = chosen_ranks(targets, among, [ranks for system in systems.values() for ranks in system.by_seed.values()])
    found = {}
    for other in others:
        pairs = _checked_pairs(systems[chosen], other)
        found[other.name] = (tuple(pairs), compare_pair(systems[chosen], other, metrics, ranks))
    comparisons = corrected(found, len(metrics))
    print(comparison_table(chosen, comparisons))
    settings = next(iter(systems[chosen].by_seed.values())).facts.settings
    print(explanation(chosen, comparisons))
    print(f"Ranking of {split}: {described({**settings, 'cooccurrence_weight': 0})}.")
    if ranks != ALL_RANKS:
        print(f"{choice_in_words(ranks)}.")


def _check_options(metrics: Sequence[str], result: str) -> None:
    for metric in metrics:
        if not re.fullmatch(rf"({'|'.join(METRICS)})@[1-9][0-9]{{0,4}}", metric):
            raise InputError(
                f"--metric {metric}: no such metric; write {' or '.join(f'{name}@K' for name in METRICS)}, with "
                "a number K from 1 to 99999, such as ndcg@10"
            )
    if len(set(metrics)) < len(metrics):
        raise InputError(f"--metric {', '.join(metrics)}: a metric is given twice; name each once")
    if not RESULT_FILE.fullmatch(result):
        raise InputError(
            f"--result {result}: is not the name of a result file; name {METRICS_FILE}, or an evaluation-*.json that "
            "jobs/evaluate.py wrote to the runs"
        )


def _named(given: Sequence[str]) -> list[_NamedRun]:
    """Split NAME=RUN. A run without a name is called after its folder, or by its whole path if two would be the same.

    Raises:
        InputError: a run is given twice.
    """
    parts = []
    for value in given:
        name, equals, run = value.partition("=")
        if not equals or not name or "/" in name or Path(value).exists():
            name, run = "", value
        parts.append((name, _folder("runs", run), value))
    folders = [run for _, run, _ in parts]
    for run in folders:
        if folders.count(run) > 1:
            raise InputError(f"--runs {run}: is given twice; name each run once")
    ends = [run.rpartition("/")[2] for run in folders]
    unnamed = [end for (name, _, _), end in zip(parts, ends, strict=True) if not name]
    taken = {name for name, _, _ in parts}
    return [
        _NamedRun(name or (end if unnamed.count(end) == 1 and end not in taken else value), run, value)
        for (name, run, value), end in zip(parts, ends, strict=True)
    ]


def _folder(option: str, run: str) -> str:
    """Return a run's absolute path or its URI, without a slash at the end."""
    return (absolute(option, expand_home(run)) or "").rstrip("/")


def _baseline(given: str, runs: Sequence[_NamedRun]) -> str:
    """Return the name of the baseline's system, which may be given by its name or as in --runs.

    Raises:
        InputError: no run has this name.
    """
    for run in runs:
        if given in (run.name, run.given) or ("/" in given and _folder("baseline", given) == run.run):
            return run.name
    known = ", ".join(dict.fromkeys(run.name for run in runs))
    raise InputError(f"--baseline {given}: is none of --runs; name one of {known}")


def _system(name: str, runs: Sequence[_NamedRun], split: str, result: str) -> System:
    """Open the ranks of a system's runs.

    Raises:
        InputError: a run has no ranks, or two runs have the same seed.
    """
    by_seed: dict[int, SavedRanks] = {}
    for run in runs:
        found = find_ranks(run.run, split, result)
        if found is None:
            again = "" if result == METRICS_FILE else " and the settings of this result"
            raise InputError(
                f"run {run.run}: has no {ranks_path(Path(result), split).name}, or one of another checkpoint than its "
                f"{result}; write it with jobs/evaluate.py --run {run.run} --set evaluation.save_ranks=true{again}"
            )
        if found.facts.seed in by_seed:
            raise InputError(
                f"--runs {name}: has two runs with seed {found.facts.seed}, and a system has one run for each seed; "
                f"leave out {run.run}, or give it another NAME"
            )
        by_seed[found.facts.seed] = found
    return System(name=name, by_seed=by_seed)


def _checked_pairs(baseline: System, other: System) -> dict[int, tuple[SavedRanks, SavedRanks]]:
    """Return the pairs of runs to compare.

    Raises:
        InputError: two runs cannot be compared, or the systems have no seed in common.
    """
    pairs = shared_seeds(baseline, other)
    if not pairs:
        raise InputError(
            f"--runs: {baseline.name} has seeds {_listed(baseline)}, {other.name} has {_listed(other)}, so no runs are "
            "a pair; name runs with the same seeds"
        )
    for one, two in pairs.values():
        reason = why_not_comparable(one.facts, two.facts)
        if reason is not None:
            raise InputError(
                f"runs {one.path.parent} and {two.path.parent} {reason}; compare runs that were evaluated alike "
                "(jobs/evaluate.py evaluates a run again, --result names what it wrote)"
            )
    return pairs


def _listed(system: System) -> str:
    return ", ".join(map(str, system.by_seed))


if __name__ == "__main__":
    main()

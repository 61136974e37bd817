"""Write a study's results to results.json, results.csv, results.md and results.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from evaluation.result_settings import ranking_note
from experiments.comparison.comparison_table import comparison_table
from experiments.study.definition import Study, Trial
from experiments.study.paired_variants import PairedVariants, compare_variants, csv_columns, section
from experiments.study.plot import chosen_metrics, draw
from experiments.study.results import (
    Estimate,
    TrialResult,
    VariantSummary,
    is_finished,
    read_results,
    summarise_variants,
)
from storage.durable_files import replacing, write_text
from storage.plain_json import json_text

COLUMNS = ("test recall@10", "test recall@20", "test ndcg@10", "test ndcg@20", "valid ndcg@10")
# Columns of the table of item groups.
GROUP_COLUMNS = ("recall@10", "ndcg@10")


def write_report(study: Study, trials: Sequence[Trial], folder: Path) -> str:
    """Write the four files from the finished trials. Return the table of variants and that of paired comparisons.

    Raises:
        InputError: see `read_results`.
    """
    results = read_results(folder, trials)
    paired = compare_variants(study, trials, folder)
    missing = [trial.name for trial in trials if not is_finished(folder, trial)]
    summaries = summarise_variants(results, study.baseline)
    write_text(folder / "results.json", _json(study, results, summaries, paired, missing))
    write_text(folder / "results.csv", _csv(study, results, paired))
    write_text(folder / "results.md", _page(study, results, summaries, paired, missing, len(trials)))
    if chosen_metrics(results):
        with replacing(folder / "results.png", one_writer=True) as temporary:
            draw(study, results, summaries, temporary)
    tables = [variants_table(summaries)]
    if paired is not None and paired.comparisons:
        tables.append(comparison_table(str(study.baseline), paired.comparisons))
    return "\n\n".join(tables)


def variants_table(summaries: Sequence[VariantSummary], style: str = "simple") -> str:
    """Return a table with a row for each variant: mean, standard error over seeds, change against the baseline."""
    columns = [name for name in COLUMNS if any(name in summary.estimates for summary in summaries)]
    rows = [
        [summary.variant, len(summary.seeds), *(_cell(summary.estimates.get(name)) for name in columns)]
        for summary in summaries
    ]
    return tabulate(rows, headers=["variant", "seeds", *columns], tablefmt=style, disable_numparse=True)


def group_section(results: Sequence[TrialResult], summaries: Sequence[VariantSummary]) -> list[str]:
    """Return the lines of the section about the targets of each item group; none if no trial has groups."""
    groups = list(dict.fromkeys(group for result in results for group in result.groups))
    rows = [
        [group, summary.variant, *(_cell(summary.estimates.get(f"{group}: {name}")) for name in GROUP_COLUMNS)]
        for group in groups
        for summary in summaries
    ]
    headers = ["targets on test, and among what", "variant", *GROUP_COLUMNS]
    table = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
    return ["", "## By item group", "", table] if rows else []


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    error = "" if estimate.error is None else f" ± {estimate.error:.4f}"
    change = "" if estimate.change is None else f" ({100 * estimate.change:+.1f}%)"
    return f"{estimate.mean:.4f}{error}{change}"


def _page(
    study: Study,
    results: Sequence[TrialResult],
    summaries: Sequence[VariantSummary],
    paired: PairedVariants | None,
    missing: Sequence[str],
    num_trials: int,
) -> str:
    done = f"{num_trials - len(missing)} of {num_trials} trials are finished"
    lines = [f"# {study.title}", "", f"Base `{study.base}`; {done}."]
    if missing:
        lines += ["", f"Not finished: {', '.join(missing)}."]
    if summaries:
        told = [caption(study, summaries), "", *ranking_notes(results)]
        lines += ["", variants_table(summaries, "pipe"), "", *told, "", "![Results](results.png)"]
        lines += group_section(results, summaries)
        lines += section(study, paired)
    return "\n".join(lines) + "\n"


def ranking_notes(results: Sequence[TrialResult]) -> list[str]:
    """Return notes that say how the variants were ranked; a single one if all were ranked in the same way."""
    notes = {result.variant: ranking_note(result.settings, {"test": result.repeat_share}) for result in results}
    if len(set(notes.values())) == 1:
        return [next(iter(notes.values()))]
    by_note: dict[str, list[str]] = {}
    for variant, note in notes.items():
        by_note.setdefault(note, []).append(variant)
    return [f"{', '.join(variants)}: {note}" for note, variants in by_note.items()]


def caption(study: Study, summaries: Sequence[VariantSummary]) -> str:
    """Explain the numbers of the table."""
    several = any(len(summary.seeds) > 1 for summary in summaries)
    parts = ["Means over seeds" + (" ± their standard error." if several else "; one seed, so no standard error.")]
    if study.baseline is not None:
        parts.append(
            f"In brackets: the relative change of the mean against `{study.baseline}`, over the seeds that both have."
        )
    parts.append("Each trial is evaluated with the checkpoint that is best on validation.")
    return " ".join(parts)


def _json(
    study: Study,
    results: Sequence[TrialResult],
    summaries: Sequence[VariantSummary],
    paired: PairedVariants | None,
    missing: Sequence[str],
) -> str:
    content = {
        "title": study.title,
        "base": study.base,
        "baseline": study.baseline,
        "trials": [result.record() for result in results],
        "variants": [asdict(summary) for summary in summaries],
        "paired": None if paired is None else asdict(paired),
        "missing": list(missing),
    }
    return json_text(content, indent=1) + "\n"


def _csv(study: Study, results: Sequence[TrialResult], paired: PairedVariants | None) -> str:
    """Return CSV text with a row for each finished trial.

    The last columns compare the trial's variant with the baseline. They are the same for all trials of a variant.
    """
    comparisons = csv_columns(paired)
    names = list(dict.fromkeys(name for columns in comparisons.values() for name in columns))
    metrics = list(dict.fromkeys(f"{split} {name}" for result in results for split, name in _measured(result)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", *study.varied(), *metrics, "best_epoch", "epochs", "seconds", *names])
    for result in results:
        values = {f"{split} {name}": value for (split, name), value in _measured(result).items()}
        writer.writerow(
            [
                result.variant,
                result.seed,
                *(result.overrides.get(key, "") for key in study.varied()),
                *(values.get(name, "") for name in metrics),
                "" if result.best_epoch is None else result.best_epoch,
                result.epochs,
                round(result.seconds, 3),
                *(comparisons.get(result.variant, {}).get(name, "") for name in names),
            ]
        )
    return text.getvalue()


def _measured(result: TrialResult) -> dict[tuple[str, str], float]:
    """Return a trial's metrics by split and name."""
    splits = {"valid": result.valid, "test": result.test}
    return {(split, name): value for split, found in splits.items() for name, value in found.items()}

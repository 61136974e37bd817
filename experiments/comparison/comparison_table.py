"""Shows comparisons with a baseline as a table, and says what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from evaluation.paired import SAMPLES
from experiments.comparison.paired_runs import Comparison


def comparison_table(baseline: str, comparisons: Sequence[Comparison], style: str = "simple") -> str:
    """Return a table with a row for each system and metric."""
    rows = []
    for found in comparisons:
        value = found.difference
        rows.append(
            [
                found.system,
                len(found.seeds),
                value.metric,
                f"{value.baseline:.4f}",
                f"{value.other:.4f}",
                f"{value.difference:+.4f}",
                f"{value.low:+.4f} to {value.high:+.4f}",
                f"{value.p:.4f}",
                f"{found.corrected_p:.4f}",
            ]
        )
    headers = ["system", "seeds", "metric", baseline, "system's", "difference", "95% interval", "p", "p (Holm)"]
    return tabulate(rows, headers=headers, tablefmt=style, disable_numparse=True)


def explanation(baseline: str, comparisons: Sequence[Comparison]) -> str:
    """Return what the numbers of the table mean."""
    systems = len({found.system for found in comparisons})
    one_seed = sorted({found.system for found in comparisons if len(found.seeds) == 1})
    parts = [
        f"Each system minus `{baseline}`, paired by user and seed. Intervals and p-values come from "
        f"{SAMPLES:,} bootstrap samples, each of which draws seeds and users. p (Holm) is corrected for the number of "
        f"systems ({systems}), within each metric."
    ]
    if one_seed:
        parts.append(
            f"With one seed ({', '.join(one_seed)}) samples draw users only, so the interval says nothing about other "
            "seeds."
        )
    return " ".join(parts)

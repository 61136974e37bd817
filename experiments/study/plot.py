"""Plot a study's results: one curve if a grid varies one knob, several if it varies two, dots for other variants."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.study.definition import Study
from experiments.study.results import TrialResult, VariantSummary

_WANTED = ("recall@20", "ndcg@10")
_LEAST_GAP = 0.1  # smallest gap between two readable tick labels, as a share of the axis


class Points:
    """The mean of a test metric for each variant, and how far its error bar reaches down and up.

    If any variant has several seeds, bars are standard errors over seeds. Otherwise they are the single run's 95%
    bootstrap interval over users.
    """

    def __init__(self, metric: str, results: Sequence[TrialResult], summaries: Sequence[VariantSummary]) -> None:
        self.over_seeds = any(len(summary.seeds) > 1 for summary in summaries)
        runs = {result.variant: result for result in results}
        self.mean: dict[str, float] = {}
        self.reach: dict[str, tuple[float, float]] = {}
        for summary in summaries:
            estimate = summary.estimates.get(f"test {metric}")
            if estimate is None:
                continue
            name, mean = summary.variant, estimate.mean
            low, high = runs[name].intervals.get(metric, (mean, mean))
            self.mean[name] = mean
            self.reach[name] = (max(mean - low, 0.0), max(high - mean, 0.0))
            if self.over_seeds:
                self.reach[name] = (estimate.error or 0.0,) * 2

    @property
    def meaning(self) -> str:
        """Say what a bar shows."""
        if self.over_seeds:
            return "mean over seeds, bar: standard error"
        return "one seed, bar: 95% bootstrap over users" if any(map(any, self.reach.values())) else "one seed"


def draw(study: Study, results: Sequence[TrialResult], summaries: Sequence[VariantSummary], path: Path) -> None:
    """Write a PNG with one panel for recall@20 and one for ndcg@10; without them, for the first two metrics."""
    metrics = chosen_metrics(results)
    swept = study.grid is not None and len(study.grid) <= 2
    height = 4.4 if swept else max(3.2, 1.8 + 0.34 * len(summaries))
    figure = Figure(figsize=(5.6 * len(metrics), height), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for metric, axes in zip(metrics, panels, strict=True):
        points = Points(metric, results, summaries)
        if swept:
            _curves(axes, study, metric, points)
        else:
            _dots(axes, study, metric, points, results)
        axes.grid(alpha=0.3)
        if axes is not panels[0] and not swept:
            axes.tick_params(labelleft=False)  # all panels share the first panel's labels
    meaning = Points(metrics[0], results, summaries).meaning
    if not swept:
        meaning += "; gray: a seed" if any(len(summary.seeds) > 1 for summary in summaries) else ""
        meaning += "; dashed: the baseline" if study.baseline is not None else ""
    figure.suptitle(
        "\n".join(line for text in (study.title, f"({meaning})") for line in textwrap.wrap(text, 50 * len(metrics))),
        fontsize=11,
    )
    figure.savefig(path, dpi=130, format="png")


def chosen_metrics(results: Sequence[TrialResult]) -> list[str]:
    """Return the metrics to plot: at most two of those that every trial has; none without results."""
    names = [name for name in (results[0].test if results else ()) if all(name in result.test for result in results)]
    return [name for name in _WANTED if name in names] or names[:2]


def _curves(axes: Axes, study: Study, metric: str, points: Points) -> None:
    """Plot the metric over the first knob's values, with a curve for each value of the second knob."""
    assert study.grid is not None
    first, *rest = study.grid
    named = study.named_variants()
    axis = Axis(study.grid[first])
    for number, other in enumerate(study.grid[rest[0]] if rest else [None]):
        names = [n for n, knobs in named.items() if n in points.mean and (not rest or knobs[rest[0]] == other)]
        if not names:
            continue
        names.sort(key=lambda name: axis.place(named[name][first]))
        style: dict[str, Any] = {"marker": "osD^v<>"[number % 7], "capsize": 4, "linewidth": 1.5}
        if rest:
            style["label"] = f"{rest[0].rpartition('.')[2]} = {other}"
        x = [axis.place(named[name][first]) for name in names]
        axes.errorbar(x, [points.mean[name] for name in names], yerr=_bars(points, names), **style)
    axis.apply(axes)
    axes.set_xlabel(f"{first}{' (log scale)' if axis.scale == 'log' else ''}")
    axes.set_ylabel(f"test {metric}")
    if rest:
        axes.legend()


def _dots(axes: Axes, study: Study, metric: str, points: Points, results: Sequence[TrialResult]) -> None:
    """Plot a row for each variant, the first on top. Seeds are faint dots; the baseline's mean is a dashed line."""
    names = list(points.mean)
    rows = {name: row for row, name in enumerate(names)}
    if points.over_seeds:
        x = [result.test[metric] for result in results]
        axes.scatter(
            x, [rows[result.variant] for result in results], s=16, color="tab:gray", alpha=0.6, zorder=2, label="a seed"
        )
    x = [points.mean[name] for name in names]
    axes.errorbar(x, list(rows.values()), xerr=_bars(points, names), fmt="o", capsize=4, color="tab:blue", zorder=3)
    if study.baseline in points.mean:
        axes.axvline(points.mean[study.baseline], color="tab:orange", linestyle="--", linewidth=1, zorder=1)
    axes.set_yticks(list(rows.values()), ["\n".join(textwrap.wrap(name, 40)) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"test {metric}")
    axes.locator_params(axis="x", nbins=6)


def _bars(points: Points, names: Iterable[str]) -> np.ndarray:
    """Return how far the bars reach down and up, float64 [2, n]."""
    return np.array([points.reach[name] for name in names]).T


class Axis:
    """The axis of a knob: linear, or logarithmic if that is readable; else values at equal distances, in order."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)
        self.scale: Literal["linear", "log", "order"] = "order"
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers = np.sort(np.array(values, dtype=np.float64))
            if _can_be_read(numbers):
                self.scale = "linear"
            elif numbers[0] > 0 and _can_be_read(np.log(numbers)):
                self.scale = "log"
            else:
                self.values.sort()

    def place(self, value: Any) -> float:
        return float(self.values.index(value)) if self.scale == "order" else float(value)

    def apply(self, axes: Axes) -> None:
        """Set the scale, and ticks at the values only."""
        if self.scale == "log":
            axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        labels = [text if len(text) <= 14 else f"{text[:13]}…" for text in map(str, self.values)]
        axes.set_xticks([self.place(value) for value in self.values], labels)
        if len(labels) * max(map(len, labels)) > 60:
            axes.tick_params(axis="x", rotation=90)


def _can_be_read(ticks: np.ndarray) -> bool:
    """Return whether labels at these places, in ascending order, do not overlap."""
    return len(ticks) < 2 or bool(np.diff(ticks).min() >= _LEAST_GAP * (ticks[-1] - ticks[0]))

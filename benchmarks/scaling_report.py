"""Write the table and the plot of `benchmarks/scaling.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.cases import PARTS
from storage.durable_files import write_text

Content = dict[str, list[dict[str, Any]]]

_GIB = 2**30
_COLUMNS = [
    "curve",
    "workers",
    "batch",
    "items",
    "targets/s",
    "ms/step",
    *PARTS,
    "MB sent",
    "MB predicted",
    "error",
    "union",
    "its prediction",
    "peak GiB",
]


def write_table(content: Content, path: Path) -> None:
    """Write a Markdown table with a row for each point; parts in percent of the step, bytes per rank and step."""
    rows = []
    for curve, points in content.items():
        for point in points:
            shares = [f"{100 * point['seconds_by_part'][part] / point['seconds_per_step']:.0f}%" for part in PARTS]
            sent, error = point["bytes_sent"], point["bytes_error"]
            rows.append(
                [
                    curve,
                    point["workers"],
                    point["batch_size"],
                    f"{point['items']:,}",
                    f"{point['targets_per_second']:,.0f}",
                    f"{1000 * point['seconds_per_step']:.0f}",
                    *shares,
                    "" if sent is None else f"{sent / 1e6:.3f}",
                    f"{point['bytes_predicted'] / 1e6:.3f}",
                    "" if error is None else f"{100 * error:+.2f}%",
                    f"{point['union']:,.0f}",
                    f"{100 * (point['union_predicted'] / point['union'] - 1):+.1f}%",
                    f"{max(point['peak_bytes'], point['peak_device_bytes']) / _GIB:.2f}",
                ]
            )
    align = ["left", *["right"] * (len(_COLUMNS) - 1)]
    write_text(path, tabulate(rows, _COLUMNS, tablefmt="github", colalign=align, disable_numparse=True) + "\n")


def plot(content: Content, path: Path) -> bool:
    """Plot four panels. Without matplotlib, write nothing and return False."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8))
    _speed(axes[0, 0], content)
    _parts(axes[0, 1], content)
    _bytes(axes[1, 0], content)
    _memory(axes[1, 1], content)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def _speed(axis: Any, content: Content) -> None:
    for curve in ("strong", "weak"):
        points = content[curve]
        workers = [point["workers"] for point in points]
        axis.plot(workers, [point["targets_per_second"] for point in points], marker="o", label=curve)
    first = content["strong"][0]
    ideal = [first["targets_per_second"] * world / first["workers"] for world in workers]
    axis.plot(workers, ideal, "k:", label="linear")
    axis.set(xlabel="workers", ylabel="targets/s", title="throughput", ylim=(0, None))
    axis.legend()


def _parts(axis: Any, content: Content) -> None:
    """Plot the parts of a step as stacked bars, with one bar for each point of every curve."""
    points = [(curve, point) for curve, chosen in content.items() for point in chosen]
    labels = [f"{curve}\nW={p['workers']}\n{p['items']:.0e}" for curve, p in points]
    below = [0.0] * len(points)
    for part in PARTS:
        heights = [1000 * point["seconds_by_part"][part] for _, point in points]
        axis.bar(range(len(points)), heights, bottom=below, label=part)
        below = [base + height for base, height in zip(below, heights, strict=True)]
    axis.set_xticks(range(len(points)), labels, fontsize=6)
    axis.set(ylabel="ms per step", title="step by part (mean over ranks)")
    axis.legend(fontsize=7)


def _bytes(axis: Any, content: Content) -> None:
    for curve in ("strong", "weak"):
        points = content[curve]
        workers = [point["workers"] for point in points]
        line = axis.plot(workers, [point["bytes_predicted"] / 1e6 for point in points], label=f"{curve}, predicted")
        measured = [(p["workers"], p["bytes_sent"] / 1e6) for p in points if p["bytes_sent"] is not None]
        axis.plot(
            *zip(*measured, strict=True) if measured else ([], []),
            "x",
            color=line[0].get_color(),
            label=f"{curve}, measured",
        )
    axis.set(xlabel="workers", ylabel="MB per rank and step", title="bytes sent", ylim=(0, None))
    axis.legend()


def _memory(axis: Any, content: Content) -> None:
    points = content["catalogue"]
    items = [point["items"] for point in points]
    axis.plot(items, [point["peak_bytes"] / _GIB for point in points], marker="o", label="peak of a rank")
    axis.plot(items, [point["start_bytes"] / _GIB for point in points], marker="o", label="before the system is built")
    if any(point["peak_device_bytes"] for point in points):
        axis.plot(items, [point["peak_device_bytes"] / _GIB for point in points], marker="o", label="device peak")
    axis.set(xlabel="items", ylabel="GiB", title="memory over the catalogue", xscale="log", ylim=(0, None))
    axis.legend()

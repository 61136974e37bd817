"""Measure how training scales with workers and items, on any Ray cluster: python benchmarks/scaling.py --output DIR

The steps are real training steps (`benchmarks/rank_measurement.py`) on synthetic interactions and a hashed graph.
Three curves are measured. Strong scaling: the global batch is the same for any number of workers. Weak scaling:
every worker has a batch of that size. Catalogue: the number of items grows, on the largest number of workers. The
results are written to DIR/scaling.json, scaling.md and scaling.png; all nodes must see DIR. The last line is one
JSON object of ratios.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import MODALITIES, PARTS, Case, Point, case_of, points_of_curves
from benchmarks.cost_model import Draws, bytes_sent, expected_distinct, expected_union, relative_error
from benchmarks.ray_ranks import measure_on_workers
from benchmarks.scaling_report import plot, write_table
from configs.loading import load_config
from configs.schema import Config
from contracts.errors import InputError
from data.dataset import Dataset, write_dataset
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec
from data.sampling.negatives import target_counts
from distributed.job_paths import absolute
from distributed.ray.cluster import connect
from jobs.cli import config_options, job
from storage.durable_files import write_text

# Used without --config: a sharded table, and draws, which keep unions small for any catalogue.
_DEFAULTS = ("training.negatives.draws=2048", "table.sharding=row_wise")
_MDSREC_DEFAULTS = ("model.mdsrec.center_samples=64",)  # only MDSRec has this knob


@click.command()
@config_options
@click.option("--output", required=True, help="folder to write to, on storage that all nodes see")
@click.option("--workers", default="1,2", show_default=True, help="numbers of workers")
@click.option(
    "--items",
    default="100000,1000000,10000000",
    show_default=True,
    help="catalogue sizes; the curves over workers use the first",
)
@click.option("--users", default=20_000, show_default=True)
@click.option("--steps", default=10, show_default=True, help="steps to measure")
@click.option("--warmup", default=3, show_default=True, help="steps before the measured ones")
@click.option("--neighbors", default=5, show_default=True, help="H of the hashed graph")
@click.option("--cooccurrences", default=10, show_default=True, help="entries per row of O")
@click.option("--centers", default=16, show_default=True, help="k of the hashed graph")
@job
def main(
    config_path: str | None, overrides: tuple[str, ...], output: str, workers: str, items: str, users: int, **shape: int
) -> None:
    """Measure every point of the curves, write the results, and print ratios as JSON on the last line."""
    defaults: tuple[str, ...] = ()
    if config_path is None:
        is_mdsrec = load_config(None, overrides).model.name == "mdsrec"
        defaults = (*_DEFAULTS, *(_MDSREC_DEFAULTS if is_mdsrec else ()))
    base = load_config(config_path, (*defaults, *overrides))
    folder = Path(absolute("--output", output) or "")
    folder.mkdir(parents=True, exist_ok=True)
    curves = points_of_curves(numbers(workers, "--workers"), numbers(items, "--items"), base.training.batch_size)
    points = list(dict.fromkeys(point for curve in curves.values() for point in curve))
    results = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scaling-") as scratch:
        datasets = {count: write_catalogue(Path(scratch), users, count) for count in {point.items for point in points}}
        connect(base.cluster.model_copy(update={"num_workers": max(point.workers for point in points)}))
        for point in points:
            case = case_of(point, base, datasets[point.items], scratch, **shape)
            measure_on_workers(case, Path(scratch))
            results[point] = summary(point, base, case, json.loads(Path(case.output).read_text())["ranks"])
            print(f"{point.name}: {results[point]['targets_per_second']:,.0f} targets/s", flush=True)
    content = {curve: [results[point] for point in chosen] for curve, chosen in curves.items()}
    write_text(folder / "scaling.json", json.dumps(content, indent=1) + "\n")
    write_table(content, folder / "scaling.md")
    plotted = plot(content, folder / "scaling.png")
    print((folder / "scaling.md").read_text())
    plot_file = "scaling.png" if plotted else "no plot, because matplotlib is not installed"
    print(f"wrote {folder}: scaling.json, scaling.md, {plot_file}")
    print(json.dumps(ratios(content)))


def numbers(text: str, option: str) -> list[int]:
    """Parse distinct positive whole numbers, and return them in ascending order.

    Raises:
        InputError: the text is something else.
    """
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise InputError(f"{option} {text}: expected whole numbers of at least 1, separated by commas")
    return found


def write_catalogue(scratch: Path, users: int, items: int) -> str:
    """Write a synthetic dataset, and return its folder. Its features are never read, so their width is 1."""
    path = str(scratch / f"items-{items}")
    spec = SyntheticSpec(num_users=users, num_items=items, modalities=tuple((name, 1) for name in MODALITIES))
    write_dataset(path, synthetic_content(spec))
    return path


def summary(point: Point, config: Config, case: Case, ranks: list[dict[str, float]]) -> dict[str, Any]:
    """Return a point's figures: seconds of the slowest rank, bytes and rows as means over ranks, the most memory."""
    mean = {name: sum(rank[name] for rank in ranks) / len(ranks) for name in ranks[0]}
    seconds = max(rank["seconds"] for rank in ranks)
    replicated = 0 if mean["row_wise"] else point.items
    dense = int(mean["dense_parameters"]) - replicated * config.model.dim
    predicted = bytes_sent(point.workers, mean["union"], config.model.dim, dense, replicated)
    measured = mean["bytes_sent"]
    return {
        "workers": point.workers,
        "batch_size": point.batch_size,
        "items": point.items,
        "targets_per_second": mean["global_targets"] / seconds,
        "seconds_per_step": seconds,
        "seconds_by_part": {part: mean[part] for part in PARTS},
        "parts_over_step": sum(mean[part] for part in PARTS) / mean["seconds"],
        "bytes_sent": measured if measured >= 0 else None,
        "bytes_predicted": sum(predicted.values()),
        "bytes_by_message": predicted,
        "bytes_error": relative_error(predicted, measured) if measured > 0 else None,
        "flops": mean["flops"],
        "gflops_per_second": mean["flops"] / seconds / 1e9,
        "union": mean["union"],
        "union_predicted": predicted_union(config, case, Dataset.open(case.config["dataset"]), mean),
        "roles": mean["roles"],
        "peak_bytes": max(rank["peak_bytes"] for rank in ranks),
        "start_bytes": max(rank["start_bytes"] for rank in ranks),
        "peak_device_bytes": max(rank["peak_device_bytes"] for rank in ranks),
        "padding": 1 - mean["history_items"] / max(1.0, mean["padded_items"]),
        "columns": mean["columns"],
        "row_wise": bool(mean["row_wise"]),
    }


def ratios(content: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return ratios between points of a curve, and the largest errors of predictions."""
    strong, weak, sizes = content["strong"], content["weak"], content["catalogue"]
    everything = [point for curve in content.values() for point in curve]
    errors = [abs(point["bytes_error"]) for point in everything if point["bytes_error"] is not None]
    return {
        "bytes_prediction_error": max(errors) if errors else None,
        "union_prediction_error": max(abs(point["union_predicted"] / point["union"] - 1) for point in everything),
        "strong_speedup": {point["workers"]: _speedup(point, strong[0]) for point in strong[1:]},
        "weak_speedup": {point["workers"]: _speedup(point, weak[0]) for point in weak[1:]},
        "step_ratio_largest_catalogue": sizes[-1]["seconds_per_step"] / sizes[0]["seconds_per_step"],
        "parts_over_step": min(point["parts_over_step"] for point in everything),
    }


def predicted_union(config: Config, case: Case, dataset: Dataset, mean: dict[str, float]) -> float:
    """Predict U. Histories and targets are taken to be drawn by popularity, and candidates as the sampler draws them.

    Args:
        config: the run's config.
        case: the measured case.
        dataset: its dataset.
        mean: mean over the ranks' records. History items and targets in it are counts, not distinct items.
    """
    negatives, mdsrec = config.training.negatives, config.model.mdsrec
    if negatives.draws is None:
        return float(dataset.num_items)
    values, sizes = np.unique(target_counts(dataset, dataset.popularity()), return_counts=True)
    popular = values**negatives.popularity_power * (values > 0)
    mixture = (1 - negatives.popularity_share) / dataset.num_items
    mixture = mixture + negatives.popularity_share * popular / (popular * sizes).sum()
    # All targets of a sequence but the last are also in its history.
    items = mean["history_items"] + mean["sequences"]
    others = mean["global_targets"] - mean["targets"] if negatives.in_batch else 0
    by_count = values / (values * sizes).sum()
    roles = expected_distinct(
        [
            Draws(items + others, by_count, sizes.astype(np.float64)),
            Draws(negatives.draws, mixture, sizes.astype(np.float64)),
        ]
    )
    if config.model.name != "mdsrec":
        return roles
    modalities = len(case.modalities)
    seen = expected_distinct([Draws(mean["history_items"], by_count, sizes.astype(np.float64))])
    draws = modalities * case.num_centers * (mdsrec.center_samples or 0)
    return expected_union(
        dataset.num_items, roles, modalities * (case.num_neighbors - 1), seen * case.num_cooccurrences + draws
    )


def _speedup(point: dict[str, Any], first: dict[str, Any]) -> float:
    return float(point["targets_per_second"] / first["targets_per_second"])


if __name__ == "__main__":
    main()

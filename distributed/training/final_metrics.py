"""Ranks valid and test at the end of a training, and writes RUN/metrics.json."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

from configs.schema import Config
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints
from distributed.checkpoints.start import START
from distributed.inference.scoring import Scorer
from distributed.inference.split_results import rank_splits
from distributed.inputs import Inputs
from distributed.sharding import ShardedSystem
from distributed.telemetry import versions
from distributed.world import World
from evaluation.result_settings import score_settings
from storage.durable_files import write_text
from storage.plain_json import json_text


def final_metrics(
    config: Config,
    inputs: Inputs,
    scorer: Scorer,
    sharded: ShardedSystem,
    checkpoints: Checkpoints,
    progress: Progress,
    world: World,
) -> dict[str, Any]:
    """Rank valid and test with the present weights and return the content of RUN/metrics.json; rank 0 writes it.

    Rank 0 also saves the rank of every target, see `rank_splits`.
    """
    assert config.run is not None
    path, best_step = Path(config.run) / "metrics.json", None
    if checkpoints.exists():
        best_step = find_checkpoint(checkpoints.run, "best", inputs.fingerprints)[1].step
    splits = rank_splits(scorer, best_step, path)
    epochs = _epochs(config)
    metrics = {
        "model": config.model.name,
        **{split: found.pop("metrics") for split, found in splits.items()},
        "settings": score_settings(config.evaluation),
        "details": splits,
        "epochs": len(epochs),
        "seconds_per_epoch": _mean([record["seconds"] for record in epochs]),
        "targets_per_second": _mean([record["targets_per_second"] for record in epochs]),
        "peak_memory_gib": round(max(world.gather(_peak_memory_gib())), 3),
        "num_parameters": count_parameters(sharded, inputs, config),
        "num_workers": world.size,
        "seed": config.seed,
        "fingerprints": inputs.result_fingerprints,
        "versions": versions(),
    }
    if START in progress.fingerprints:
        metrics["started_from"] = {"run": config.training.start_from, "checkpoint": progress.fingerprints[START]}
    if best_step is not None:
        metrics["best_step"] = best_step
    if world.is_first:
        write_text(path, json_text(metrics, indent=1) + "\n")
    return metrics


def count_parameters(sharded: ShardedSystem, inputs: Inputs, config: Config) -> int:
    """Return the number of parameters of the whole system, also of frozen ones, summed over the shards of its table."""
    towers = sum(p.numel() for p in sharded.system.recommender.parameters())
    return towers + (inputs.dataset.num_items * config.model.dim if sharded.sharding else 0)


def _epochs(config: Config) -> list[dict[str, Any]]:
    path = Path(config.run or "") / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _peak_memory_gib() -> float:
    """Return the largest resident memory that this process had so far, in GiB. Its children are not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

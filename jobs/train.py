"""Train a recommender on a Ray cluster: python jobs/train.py --config configs/x.yaml --set run=RUN ..."""

from __future__ import annotations

import json
from pathlib import Path

import click

from configs.loading import load_config
from distributed.inputs import open_inputs
from distributed.ray_cluster import connect, resolve_paths, workers_use_gpu
from distributed.ray_train import run_on_workers
from distributed.run_folder import check_run_folder
from distributed.trainer import check_trainable
from evaluation.report import metrics_table
from jobs.cli import config_options, job, validate


@click.command()
@config_options
@job
def main(config_path: str | None, overrides: tuple[str, ...]) -> None:
    """Train to early stopping, evaluate the best checkpoint on valid and test, write RUN/metrics.json.

    The same command again continues where RUN's latest checkpoint stands.
    """
    config = resolve_paths(load_config(config_path, overrides))
    check_run_folder(config)
    stated = config.graph_options.model_dump(include=config.graph_options.model_fields_set)
    inputs = open_inputs(config, expected_graph=stated)
    validate(inputs)

    connect(config.cluster)
    check_trainable(config, inputs, "cuda" if workers_use_gpu(config.cluster) else "cpu")
    run_on_workers("train", config)

    assert config.run is not None
    metrics = json.loads((Path(config.run) / "metrics.json").read_text())
    columns = tuple(f"{name}@{k}" for name in ("recall", "ndcg") for k in config.evaluation.ks)
    print(metrics_table({split: metrics[split] for split in ("valid", "test")}, columns))
    written = ", ".join(sorted(path.name for path in Path(config.run).iterdir()))
    print(f"wrote run {config.run} ({metrics['model']}): {written}")


if __name__ == "__main__":
    main()

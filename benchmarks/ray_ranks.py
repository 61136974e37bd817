"""Start the ranks of a measurement on the connected Ray cluster, as `distributed.ray.launch` does for a run."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from benchmarks.cases import Case
from configs.loading import parse_config
from distributed.rank_task import quiet_libraries
from distributed.ray.cluster import workers_use_gpu


def measure_on_workers(case: Case, folder: Path) -> None:
    """Measure a case on `cluster.num_workers` ranks and wait until it ends. Rank 0 writes `case.output`.

    Args:
        case: what to measure.
        folder: folder for temporary files that all nodes see.
    """
    cluster = parse_config(case.config, "of the case").cluster
    gpu = workers_use_gpu(cluster)
    storage = folder / "ray"
    trainer = TorchTrainer(
        _on_worker,
        train_loop_config=asdict(case),
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": cluster.cpus_per_worker, **({"GPU": 1} if gpu else {})},
        ),
        run_config=RunConfig(name=f"scaling-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}", storage_path=str(storage)),
    )
    trainer.fit()
    shutil.rmtree(storage, ignore_errors=True)


def _on_worker(job: dict[str, Any]) -> None:
    """Run the measurement in a worker process. Heavy modules are imported here, in the process itself."""
    quiet_libraries()
    from benchmarks.rank_measurement import measure
    from distributed.world import World

    measure(Case(**job), World.current(ray.train.torch.get_device()))

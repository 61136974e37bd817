"""Recommends for the parts of a table on a Ray cluster, with Ray Data; every node must see the same folders."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from configs.schema import ClusterConfig
from contracts.errors import InputError
from distributed.output import is_verbose
from serving.batch import Counts, open_predictor, recommend_part
from serving.batch_plan import Part, Request
from serving.predictor import Predictor
from storage.plain_json import json_text

_predictors: dict[str, Predictor] = {}


def on_ray(request: Request, parts: list[Part], folder: Path, cluster: ClusterConfig) -> Generator[Counts]:
    """Recommend for the parts on as many workers as `cluster.num_workers` says; yield the counts of each.

    A part of a worker that is lost is done again by another.

    Raises:
        InputError: what a worker raised, for the first part that it refused.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not is_verbose():
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    workers = cluster.num_workers if isinstance(cluster.num_workers, int) else cluster.num_workers[1]
    work = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts))
    done = work.map_batches(
        _recommend,
        fn_kwargs={"request": request, "folder": str(folder), "threads": int(cluster.cpus_per_worker)},
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.TaskPoolStrategy(size=min(workers, len(parts))),
        num_cpus=cluster.cpus_per_worker,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise InputError(row["error"])
        yield Counts(**{field.name: int(row[field.name]) for field in fields(Counts)})


def _recommend(batch: dict[str, np.ndarray], *, request: Request, folder: str, threads: int) -> dict[str, Any]:
    """Recommend for one part; a task of Ray Data."""
    torch.set_num_threads(max(1, threads))
    numbers = {name: int(batch[name][0]) for name in ("number", "row_group", "start", "stop")}
    part = Part(file=str(batch["file"][0]), **numbers)
    try:
        counts = recommend_part(_opened(request), request, part, Path(folder))
    except InputError as error:  # Ray would wrap it in a traceback
        return {"error": [str(error)], **{name: [0] for name in asdict(Counts())}}
    return {"error": [""], **{name: [value] for name, value in asdict(counts).items()}}


def _opened(request: Request) -> Predictor:
    """Return the run of a request, which is opened once in each of Ray's worker processes: they run many tasks."""
    key = json_text(asdict(request))
    if key not in _predictors:
        _predictors.clear()
        _predictors[key] = open_predictor(request)
    return _predictors[key]

"""Where `jobs/prepare_data.py` prepares raw interactions: in this process or on a Ray cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import click

from configs.schema import ClusterConfig
from contracts.errors import InputError
from data.prepare.engine.executor import SerialExecutor
from data.prepare.engine.work import Executor
from data.prepare.engine.workplace import Workplace
from distributed.output import is_verbose
from distributed.run_location import check_cpus

Engine = Literal["auto", "serial", "ray"]
Command = TypeVar("Command", bound=Callable[..., None])
# Below this size of the input, one process takes minutes, and starting Ray would be a noticeable part of that.
_RAY_FROM_BYTES = 4 << 30


def engine_options(function: Command) -> Command:
    """Add `--engine`, `--hold-back` and `--set`, which is passed on as overrides."""
    engine = click.option(
        "--engine",
        type=click.Choice(["auto", "serial", "ray"]),
        help="raw interactions: where they are prepared. serial: in this process; ray: on a Ray cluster, with "
        f"cluster.num_workers workers; auto: ray if the input has {_RAY_FROM_BYTES >> 30} GiB or more [default: auto]",
    )
    hold_back = click.option(
        "--hold-back/--no-hold-back",
        default=None,
        help="raw interactions: write those that the k-core removes to held_back.parquet in the dataset's folder",
    )
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.FIELD=VALUE",
        help="set a knob of the Ray cluster, e.g. cluster.num_workers=4; may be repeated",
    )
    return engine(hold_back(overrides(function)))


def workplace(dataset: Path, engine: Engine, cluster: ClusterConfig) -> Workplace:
    """Return where a dataset is prepared. The work folder is beside it, so that both are on the same disk."""
    folder = dataset.absolute()
    folder = folder.with_name(f".{folder.name}.preparing")
    return Workplace(folder=folder, executor=partial(_executor, folder, engine, cluster))


@contextmanager
def _executor(folder: Path, engine: Engine, cluster: ClusterConfig, num_bytes: int) -> Iterator[Executor]:
    """Yield the executor that `--engine` names, or the one that fits the size of the input.

    Raises:
        InputError: Ray is asked for and is not installed or cannot be joined, or a node does not see the folder.
    """
    has_ray = importlib.util.find_spec("ray") is not None
    if engine == "ray" and not has_ray:
        raise InputError("--engine ray: Ray is not installed; install it, or use --engine serial")
    if engine == "auto":
        engine = "ray" if has_ray and num_bytes >= _RAY_FROM_BYTES else "serial"
        where = "with Ray" if engine == "ray" else "in this process"
        print(
            f"preparing {num_bytes / 2**20:,.1f} MiB of input {where}; --engine auto uses Ray from "
            f"{_RAY_FROM_BYTES >> 20:,} MiB",
            flush=True,
        )
    if engine == "serial":
        yield SerialExecutor()
        return
    check_cpus(cluster, f"cluster.cpus_per_worker={cluster.cpus_per_worker}", cluster.cpus_per_worker)
    from data.prepare.engine.ray_stages import RayExecutor
    from distributed.ray.cluster import check_seen_by_all_nodes, cluster_in_words, connect

    print(f"preparing with {cluster.most_workers} workers: {cluster_in_words(cluster)}", flush=True)
    connect(cluster)
    check_seen_by_all_nodes(folder, f"{folder}, the folder of the work files")
    yield RayExecutor(cluster, folder, is_verbose())

"""Recommends for a table of histories in this process or on a Ray cluster, and continues what was begun."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.schema import Config
from contracts.errors import InputError
from contracts.terminal import shows_bars
from distributed.output import local_bar
from distributed.run_location import runs_in_this_process
from distributed.telemetry import unwatched
from serving.batch import Counts, finish, in_this_process, open_output
from serving.batch_plan import Part, Request, plan_parts


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a batch job wrote.

    Attributes:
        counts: of all users, also of those whose parts were there before.
        parts: number of files.
    """

    counts: Counts
    parts: int


def recommend_table(
    config: Config, request: Request, table: str, users_per_part: int, folder: Path, overwrite: bool
) -> Outcome:
    """Write the lists of all users of a table to a folder.

    With cluster.num_workers=1 and no cluster address, the parts are done in this process, one after the other.
    Otherwise they are done on a Ray cluster, whose nodes must see the table and the folder under the same paths.

    Raises:
        InputError: the table or the folder is not what it should be. Finished parts stay.
    """
    parts, is_new = plan_parts(table, users_per_part), not folder.exists()
    try:
        missing = open_output(folder, request, parts, overwrite)
        if len(missing) < len(parts):
            print(f"continuing: {len(parts) - len(missing):,} of {len(parts):,} parts are there", flush=True)
        if not missing:
            pass
        elif runs_in_this_process(config.cluster):
            _work_here(config, request, missing, folder)
        else:
            _work_on_ray(config, request, missing, folder)
        counts = finish(folder, parts)
    except InputError:
        if is_new and folder.exists() and not any(folder.glob("part-*")):  # a table that is wrong leaves nothing behind
            shutil.rmtree(folder)
        raise
    except OSError as error:
        raise InputError(
            f"--output {folder}: cannot be written ({error.strerror or error}); finished parts are kept: free space or "
            "change permissions, and repeat the command"
        ) from None
    return Outcome(counts=counts, parts=len(parts))


def _work_here(config: Config, request: Request, missing: list[Part], folder: Path) -> None:
    threads = max(1, int(config.cluster.cpus_per_worker))
    print("running in this process, without Ray: cluster.num_workers is 1", flush=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _drain(in_this_process(request, missing, folder), len(missing))
    finally:
        torch.set_num_threads(before)


def _work_on_ray(config: Config, request: Request, missing: list[Part], folder: Path) -> None:
    from distributed.ray.cluster import cluster_in_words, connect
    from serving.ray_parts import on_ray

    print(f"running with {config.cluster.num_workers} workers: {cluster_in_words(config.cluster)}", flush=True)
    connect(config.cluster)
    with contextlib.closing(on_ray(request, missing, folder, config.cluster)) as counts:
        _drain(counts, len(missing))


def _drain(counts: Iterable[Counts], total: int) -> None:
    track = local_bar if shows_bars() else unwatched
    for _ in track(counts, total, "parts"):
        pass

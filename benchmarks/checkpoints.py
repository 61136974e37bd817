"""Measure how long training waits for a checkpoint: python benchmarks/checkpoints.py [--items 10000000]

The program saves and loads a row-wise sharded table of that many items, with its optimiser state, on one rank. It
saves in the foreground ("save") and in the background. In the background, training waits only while the state is
copied ("start") and while the finished checkpoint gets its name ("finish"). For comparison, the program writes and
flushes as many bytes to the same disk, and hashes them. A save cannot take less than these two times together, its
floor.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from configs.loading import load_config
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints
from distributed.sharding import shard
from distributed.world import world_of_one
from model.blocks.item_table import ItemTable
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model


@click.command()
@click.option("--items", default=10_000_000, show_default=True)
@click.option("--dim", default=64, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    help="folder on the disk to measure [default: the folder for temporary files]",
)
def main(items: int, dim: int, folder: str | None) -> None:
    """Print seconds as JSON."""
    config = load_config(None, ["model.name=sasrec", f"model.dim={dim}", "table.sharding=row_wise"])
    with tempfile.TemporaryDirectory(dir=folder) as scratch, world_of_one() as world:
        model = build_model(
            config.model, CatalogueInfo(num_items=items, modalities=(), feature_dims={}, num_centers={})
        )
        table = ItemTable(num_items=items, dim=dim, init_std=0.0, device="meta")
        sharded = shard(RecommenderSystem(table, model), config, items, world)
        for parameter in sharded.dense_parameters:
            parameter.grad = parameter.detach().clone()
        sharded.optimizer.step()  # creates the optimisers' state
        checkpoints = Checkpoints(f"{scratch}/run", world)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = {}
        for step in (1, 2):  # only the second save counts, as most saves of a run are not the first
            began = perf_counter()
            checkpoints.save(sharded, Progress(step=step, best_step=step))
            seconds["save"] = perf_counter() - began
        began = perf_counter()
        checkpoints.start(sharded, Progress(step=3, best_step=3))
        seconds["start"] = perf_counter() - began
        while checkpoints.is_writing:
            sleep(0.1)
        began = perf_counter()
        checkpoints.finish()
        seconds["finish"] = perf_counter() - began
        extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        files = list(Path(scratch).glob("run/checkpoints/step-00000003/*.safetensors"))
        size = sum(path.stat().st_size for path in files)
        began = perf_counter()
        checkpoints.load("latest", sharded, {})
        seconds["load"] = perf_counter() - began
        seconds["write"], seconds["hash"] = _floor(Path(scratch) / "floor", size)
    floor = seconds["write"] + seconds["hash"]
    figures = {"checkpoint_gib": size / 2**30, "extra_memory_gib": extra / 2**20}
    figures |= {f"{name}_seconds": value for name, value in seconds.items()}
    waits = seconds["start"] + seconds["finish"]
    figures |= {"save_over_floor": seconds["save"] / floor, "waits_over_save": waits / seconds["save"]}
    figures |= {"waits_of_ten_minutes": waits / 600}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def _floor(path: Path, size: int) -> tuple[float, float]:
    """Return the seconds to write and flush that many bytes, and the seconds to hash them."""
    block = os.urandom(1 << 24)
    count = -(-size // len(block))
    began = perf_counter()
    with path.open("wb") as file:
        for _ in range(count):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written = perf_counter() - began
    began = perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return written, perf_counter() - began


if __name__ == "__main__":
    main()

"""Compare training steps on ten million and a hundred thousand items: python benchmarks/large_catalogue.py

Two ranks over gloo train SASRec of width 64, with a row-wise sharded table, sampled softmax with 2,048 draws, and
batches of 512 targets from one loader process per rank. First the same steps are timed on both catalogues. Then a
whole run on the large catalogue reads a dataset from disk, trains, ranks every item, writes checkpoints and loads
the best one. Memory is the peak resident size of each process (VmHWM), libraries and mapped files included, summed
over ranks. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch

from configs.loading import load_config
from contracts.batch import Step
from data.sampling.batches import TrainBatches
from data.sampling.item_planner import ItemPlanner
from distributed.inputs import Inputs
from distributed.sharding import shard
from distributed.training.loader import StepOrder, loader_of
from distributed.training.read_ahead import read_ahead
from distributed.training.step import TrainSteps
from distributed.training.trainer import candidate_sampler, train, training_spans
from distributed.world import World
from jobs.prepare_data import prepare
from model.blocks.item_table import ItemTable
from model.protocol import CatalogueInfo
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.distributed.spawn import run_ranks
from tests.sequences import Sequences

_LOADER_WORKERS = 1
_OPTIONS = (
    "model.name=sasrec",
    "table.sharding=row_wise",
    "table.learning_rate=0.05",
    "training.negatives.draws=2048",
    f"training.loader_workers={_LOADER_WORKERS}",
)
_WARM_UP = 5


@click.command()
@click.option("--small", default=100_000, show_default=True)
@click.option("--large", default=10_000_000, show_default=True)
@click.option("--users", default=2000, show_default=True, help="users of the whole run")
def main(small: int, large: int, users: int) -> None:
    """Print the figures as JSON."""
    print(json.dumps({key: round(value, 4) for key, value in compare_catalogues(small, large, users).items()}))


def compare_catalogues(small: int, large: int, users: int = 2000) -> dict[str, float]:
    """Return the large catalogue's step time divided by the small one's, loader waits, and a whole run's memory."""
    with tempfile.TemporaryDirectory() as folder:
        timed = Path(folder) / "timed.json"
        run_ranks(2, _time_steps, timed, (small, large, small, large), 60)
        seconds, stalled = json.loads(timed.read_text()).values()
        seconds = [float(np.mean(seconds[0::2])), float(np.mean(seconds[1::2]))]
        dataset = str(Path(folder) / "dataset")
        prepare("synthetic", dataset, num_users=users, num_items=large)
        peaks = Path(folder) / "peak"
        peaks.mkdir()
        run_ranks(2, _whole_run, dataset, str(Path(folder) / "run"), peaks)
        peak = [json.loads(path.read_text()) for path in peaks.iterdir()]
    print(f"steps of {seconds[0]:.3f} s with {small:,} items, {seconds[1]:.3f} s with {large:,}")
    print("\n".join(f"rank: {p['before']:.2f} GiB before, peak {p['peak']:.2f} GiB; {p['parts']}" for p in peak))
    return {
        "step_ratio_10m_over_100k": seconds[1] / seconds[0],
        "loader_stall_fraction": max(stalled),
        "rss_gib_10m": sum(p["peak"] for p in peak),
    }


def _time_steps(world: World, output: Path, sizes: tuple[int, ...], count: int) -> None:
    """Write, for each catalogue, the median seconds of a step and the share of time spent waiting for batches."""
    found = [_steps(world, num_items, count) for num_items in sizes]
    if world.is_first:
        output.write_text(json.dumps({"seconds": [s for s, _ in found], "stalled": [w for _, w in found]}))


def _steps(world: World, num_items: int, count: int) -> tuple[float, float]:
    config = load_config(None, list(_OPTIONS))
    data = _sequences(num_items, 4000)
    torch.manual_seed(0)
    recommender = build_model(config.model, CatalogueInfo(num_items=num_items))
    system = RecommenderSystem(
        ItemTable(num_items=num_items, dim=config.model.dim, init_std=0.02, device="meta"), recommender
    )
    planner = ItemPlanner(needs=recommender.needs, num_items=num_items, graph=None, features={})
    spans, sampler = training_spans(config, data), candidate_sampler(config, Inputs(data, None))  # type: ignore[arg-type]
    batches = TrainBatches(
        data=data,
        spans=spans,
        batch_size=512,
        seed=0,
        rank=world.rank,
        world=world.size,
        planner=planner,
        candidates=sampler,
    )
    steps = TrainSteps(sharded=shard(system, config, num_items, world), plan=batches.plan, config=config, world=world)
    waits: list[float] = []
    loader = islice(loader_of(batches, StepOrder(len(batches)), _LOADER_WORKERS, world), count)
    ends = []
    for _ in steps.run(_noting_waits(read_ahead(loader), waits)):
        ends.append(perf_counter())
    seconds = np.diff(ends[_WARM_UP:])
    # Steps are read two ahead, so the wait for step n + 2 falls into step n. The last wait found the end of the data.
    return float(np.median(seconds)), float(sum(waits[_WARM_UP + 2 : -1]) / seconds.sum())


def _noting_waits(loader: Iterable[Step], waits: list[float]) -> Iterator[Step]:
    ready = iter(loader)
    while True:
        began = perf_counter()
        step = next(ready, None)
        waits.append(perf_counter() - began)
        if step is None:
            return
        yield step


def _sequences(num_items: int, num_users: int) -> Sequences:
    rng = np.random.default_rng(0)
    lengths = 3 + rng.geometric(0.15, num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(0, num_items, offsets[-1])
    return Sequences(num_items, num_users, offsets, items, lengths - 2, lengths - 1)


def _whole_run(world: World, dataset: str, run: str, peaks: Path) -> None:
    before = _resident("VmRSS")
    began = perf_counter()
    config = load_config(None, [*_OPTIONS, f"dataset={dataset}", f"run={run}", "training.max_epochs=1"])
    metrics = train(config, world)
    parts = {"epoch s": round(metrics["seconds_per_epoch"], 1), "all s": round(perf_counter() - began, 1)}
    (peaks / f"{world.rank}").write_text(json.dumps({"before": before, "peak": _resident("VmHWM"), "parts": parts}))


def _resident(field: str) -> float:
    """Return a memory field of this process in Linux's /proc, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**20


if __name__ == "__main__":
    main()

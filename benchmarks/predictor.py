"""Time and memory of recommending with a predictor, beside the floor: one matrix product of users and items.

    python benchmarks/predictor.py --items 100000 --users 10000
    python benchmarks/predictor.py --run RUN

Without --run, the run is SASRec with random weights, which takes the same time as a trained one. With it, the time of
opening the run is printed too. The floor is the product of the
users' vectors [n, D] and the items' vectors [D, N], in pieces of the same sizes, with the same number of threads.
The last line is a JSON object of ratios.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import pyarrow as pa
import torch

from configs.loading import load_config
from data.dataset import write_dataset
from data.writing import DatasetContent, Sequences
from distributed.inference.scoring import Scorer
from distributed.inputs import build_system, open_inputs
from distributed.sharding import fill_table, unsharded
from distributed.world import World
from serving.loading import load
from serving.predictor import Predictor

K, LENGTH = 20, 20


def make_predictor(root: Path, num_items: int, dim: int) -> Predictor:
    """Return a predictor of SASRec with random weights over a catalogue without features."""
    items = np.arange(num_items, dtype=np.int64)
    content = DatasetContent(
        sequences=Sequences(
            offsets=np.array([0, num_items]),
            items=items,
            timestamps=None,
            train_end=np.array([num_items - 2]),
            valid_end=np.array([num_items - 1]),
        ),
        user_source_ids=pa.array(["u"]),
        item_source_ids=pa.array([f"i{item}" for item in items]),
        features={},
    )
    write_dataset(str(root / "dataset"), content)
    settings = [f"dataset={root}/dataset", "model.name=sasrec", f"model.dim={dim}", "model.num_heads=2"]
    config = load_config(None, settings)
    inputs = open_inputs(config)
    sharded = unsharded(build_system(config, inputs), torch.device("cpu"))
    fill_table(sharded.system.state_dict(), config.model.init_std, config.seed)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=World.alone(torch.device("cpu")))
    return Predictor(scorer=scorer, step=None, device=torch.device("cpu"), identity={})


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median of the call's times, after one call that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def product(users: torch.Tensor, items: torch.Tensor, user_batch: int, item_block: int) -> None:
    """Compute all scores in pieces, and drop them."""
    for first in range(0, len(users), user_batch):
        for start in range(0, len(items), item_block):
            torch.mm(users[first : first + user_batch], items[start : start + item_block].T)


@click.command()
@click.option("--items", default=100_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--users", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--dim", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--run", metavar="RUN", help="a trained run, instead of one with random weights")
def main(items: int, users: int, dim: int, repeats: int, run: str | None) -> None:
    """Time recommendations of one history and of many, and the matrix product of the same sizes."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        predictor = make_predictor(Path(folder), items, dim) if run is None else load(run)
        if run is not None:
            print(f"opened in {time.perf_counter() - begin:.2f} s, after the imports")
            items, dim = predictor.num_items, predictor.ranking.width
        rng = np.random.default_rng(0)
        histories = pa.array(list(rng.integers(0, items, (users, LENGTH))))
        one = histories.slice(0, 1)
        vectors = torch.from_numpy(predictor.item_vectors())
        found, options = {}, predictor.config.evaluation
        for name, some in (("one", one), ("many", histories)):
            of_users = torch.from_numpy(predictor.user_vectors(some))
            floor = median_seconds(
                lambda u=of_users: product(u, vectors, options.user_batch, options.item_block), repeats
            )
            encode = median_seconds(lambda h=some: predictor.user_vectors(h), repeats)
            whole = median_seconds(lambda h=some: predictor.recommend(h, K), repeats)
            found[name] = {"floor": floor, "encode": encode, "whole": whole}
            print(
                f"{len(some):,} histories of {LENGTH} items, {items:,} items of width {dim}: {whole * 1e3:.1f} ms, of "
                f"which {encode * 1e3:.1f} ms encode the histories; one matrix product takes {floor * 1e3:.1f} ms"
            )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak resident memory {memory:,.0f} MiB; the item vectors alone take {items * dim * 4 / 2**20:,.0f} MiB")
    ratios = {f"recommend_over_gemm_{name}": round(t["whole"] / t["floor"], 2) for name, t in found.items()}
    beyond = {
        f"ranking_over_gemm_{name}": round((t["whole"] - t["encode"]) / t["floor"], 2) for name, t in found.items()
    }
    print(json.dumps({**ratios, **beyond, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()

"""Measure how long ranking takes to find the user-item pairs with a co-occurrence gain.

python benchmarks/score_gains.py --dataset DATASET --graph GRAPH

Users are ranked in batches, at their test targets. Three times are measured for each batch: finding the pairs that
have a gain and sorting them for a pass over the items; the sparse product of inputs and rows of O alone, which is
the floor of the first; and the dense product that scores the same users against all items. All times are medians of
processor seconds on one thread. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch
from scipy.sparse import csr_array
from tabulate import tabulate

from configs.schema import EvaluationConfig
from data.dataset import Dataset
from data.ragged import offsets_of
from data.sampling.spans import spans_before
from data.sequences import Targets, target_items
from distributed.host_memory import keep_freed_memory
from distributed.inference.score_gains import GainRates, ScoreGains
from distributed.inputs import open_graph
from evaluation.user_batches import user_batch

LENGTH = 50


@click.command()
@click.option("--dataset", required=True, type=click.Path(exists=True, file_okay=False))
@click.option("--graph", required=True, type=click.Path(exists=True, file_okay=False))
@click.option("--batches", default=20, show_default=True, type=click.IntRange(1))
@click.option("--batch", default=256, show_default=True, type=click.IntRange(1), help="users of a batch")
@click.option("--dim", default=192, show_default=True, type=click.IntRange(1), help="width of the users' vectors")
def main(dataset: str, graph: str, batches: int, batch: int, dim: int) -> None:
    """Print a table and, on the last line, JSON."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    data = Dataset.open(dataset)
    relations = open_graph(graph, dataset_fingerprint=data.fingerprint)
    gains = ScoreGains(data=data, graph=relations, max_length=LENGTH, options=EvaluationConfig(cooccurrence_weight=1))
    targets = Targets(data, "test")
    items = torch.randn(data.num_items, dim)
    seconds: dict[str, list[float]] = {"pairs": [], "sparse product": [], "dense product": []}
    num_pairs = 0
    for first in range(0, min(batches * batch, len(targets)), batch):
        users, positions = targets.locate(np.arange(first, min(first + batch, len(targets))))
        wanted = target_items(data, users, positions)
        rates = GainRates(repeats=np.zeros(len(users), np.float32), cooccurrence=np.ones(len(users), np.float32))

        def pairs(users=users, positions=positions, wanted=wanted, rates=rates) -> int:  # type: ignore[no-untyped-def]
            return len(user_batch(torch.empty(0), wanted, *gains.pairs(users, positions, wanted, False, rates)).gains)

        inputs, rows = _operands(data, relations, users, positions)
        vectors = torch.randn(len(users), dim)
        num_pairs += pairs()
        for name, work in (
            ("pairs", pairs),
            ("sparse product", lambda inputs=inputs, rows=rows: inputs @ rows),
            ("dense product", lambda vectors=vectors: vectors @ items.T),
        ):
            seconds[name].append(_processor_seconds(work))
    medians = {name: float(np.median(each)) for name, each in seconds.items()}
    shown = [[name, 1e3 * each, medians["pairs"] / each] for name, each in medians.items()]
    print(tabulate(shown, headers=["", "ms a batch", "time of pairs / this time"], floatfmt=".2f"))
    used = min(batches * batch, len(targets))
    print(f"{num_pairs / used:,.0f} pairs a user, {used:,} users, {data.num_items:,} items")
    print(json.dumps({"pairs_a_user": num_pairs / used, "seconds": medians}))


def _operands(data: Dataset, graph, users: np.ndarray, positions: np.ndarray) -> tuple[csr_array, csr_array]:  # type: ignore[no-untyped-def]
    """Return inputs [B, m] and rows of O [m, N] in memory: the product's operands, prepared before it is timed."""
    spans = spans_before(users, positions, LENGTH)
    rows = np.repeat(np.arange(len(users)), spans.lengths)
    places = np.arange(len(rows)) - offsets_of(spans.lengths)[rows]
    items = np.asarray(data.items[(data.offsets[users] + spans.starts)[rows] + places])
    distinct, place = np.unique(items, return_inverse=True)
    offsets, others, values = graph.cooccurrence_rows(distinct)
    inputs = csr_array((np.ones(len(place)), place, offsets_of(spans.lengths)), shape=(len(users), len(distinct)))
    return inputs, csr_array((values, others, offsets), shape=(len(distinct), data.num_items))


def _processor_seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()

"""Compare centre attention with a matrix product of as many multiply-adds: python benchmarks/center_path.py

The program prints the time of the matrix product divided by the time of centre attention.

A row is one centre of one state. In the forward, a layer needs 9 d^2 multiply-adds for each row (its output
projection and a feed-forward of width 4 d). Layers after the first need another d^2 for their queries. Attention
needs 2 d for each key that the state sees. The backward needs twice as many. (With few keys, the system applies two
projections to the keys instead and needs fewer multiply-adds; the count here ignores this.) The matrix product is
torch.mm in the shapes of the feed-forward (2,048 rows x d times d x 4 d, and back), which stay in cache. It runs on
the same threads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import torch
from torch import Tensor

from configs.schema import ModelConfig
from contracts.batch import SequenceGroup
from distributed.host_memory import keep_freed_memory
from model.blocks.center_chunks import EncodedGroup, in_chunks
from model.blocks.interest_centers import History, personal_centers
from model.blocks.sequence_encoder import SequenceEncoder, layers_of
from model.blocks.sequence_groups import Sequences

_ROUNDS = 5


@click.command()
@click.option("--length", default=6, show_default=True)
@click.option("--sequences", default=80, show_default=True)
@click.option("--centers", default=32, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(length: int, sequences: int, centers: int, threads: int) -> None:
    """Print the time of the matrix product, divided by that of centre attention, as JSON."""
    torch.set_num_threads(threads)
    share = center_path_share([SequenceGroup(sequences, length, length)], centers)
    print(json.dumps({"center_path_over_gemm": round(share, 4)}))


def center_path_share(groups: Iterable[SequenceGroup], num_centers: int) -> float:
    """Return the matrix product's seconds divided by centre attention's, for one modality.

    Both times are of forward and backward, and both are medians over rounds in which the two take turns.
    """
    keep_freed_memory()  # as a rank of a training does
    config = ModelConfig(dim=64, max_length=200, dropout=0.0)
    torch.manual_seed(0)
    encoder = SequenceEncoder(config)
    centers = torch.randn(num_centers, config.dim, requires_grad=True)
    work = [_inputs(encoder, group) for group in groups]
    rows = sum(group.count * group.states for group in groups) * num_centers
    seen = sum(group.count * _visible_keys(group) for group in groups) * num_centers
    num_layers = config.num_layers
    products = (9 * num_layers + num_layers - 1) * config.dim**2 * rows + 2 * num_layers * config.dim * seen
    floor, path = [], []
    for _ in range(_ROUNDS + 1):
        floor.append(_floor_seconds(3 * products, config.dim))
        path.append(_path_seconds(encoder, centers, work))
    return float(np.median(floor[1:]) / np.median(path[1:]))


def _visible_keys(group: SequenceGroup) -> int:
    """Return how many keys the states of one sequence see, summed over the states."""
    first = group.length - group.states
    return sum(range(first + 1, group.length + 1))


def _inputs(encoder: SequenceEncoder, group: SequenceGroup) -> tuple[Sequences, list[tuple[Tensor, Tensor]]]:
    lengths = torch.full((group.count,), group.length)
    sequences = Sequences(
        length=group.length,
        lengths=lengths,
        num_states=torch.full_like(lengths, group.states),
        num_queries=group.states,
    )
    items = torch.randn(group.count, group.length, encoder.positions.embedding_dim)
    with torch.no_grad():
        pairs = encoder(items, sequences).keys_values
    return sequences, [(keys.requires_grad_(), values.requires_grad_()) for keys, values in pairs]


def _path_seconds(
    encoder: SequenceEncoder, centers: Tensor, work: list[tuple[Sequences, list[tuple[Tensor, Tensor]]]]
) -> float:
    began = perf_counter()
    layers = layers_of(encoder.layers)

    def path(_: Tensor, histories: list[History]) -> Tensor:
        return personal_centers(centers, layers, histories, 0.0, True).sum(1)

    groups = [sequences for sequences, _ in work]
    # No gate reads the states in this benchmark.
    unused = [torch.empty(group.count, group.num_queries, 0) for group in groups]
    encoded = [EncodedGroup(states, pairs) for states, (_, pairs) in zip(unused, work, strict=True)]
    states = in_chunks(groups, encoded, len(centers), path, False)
    sum((of_group.square().sum() for of_group in states), torch.zeros(())).backward()
    return perf_counter() - began


def _floor_seconds(products: int, width: int) -> float:
    rows = 2048
    states, weights = torch.randn(rows, width), torch.randn(4 * width, width)
    hidden, back = torch.empty(rows, 4 * width), torch.empty(rows, width)
    count = max(1, round(products / (2 * rows * 4 * width**2)))
    began = perf_counter()
    for _ in range(count):
        torch.mm(states, weights.T, out=hidden)
        torch.mm(hidden, weights, out=back)
    return (perf_counter() - began) * products / (count * 2 * rows * 4 * width**2)


if __name__ == "__main__":
    main()

"""The cost model agrees with PyTorch's operation counts, TorchRec's messages and simulated draws."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost_model import (
    Draws,
    ModelShape,
    bytes_sent,
    expected_distinct,
    expected_union,
    forward_flops,
    sampler_bytes,
    step_flops,
    table_bytes,
)
from benchmarks.rank_measurement import shape_of
from benchmarks.socket_bytes import RankConnections
from configs.loading import load_config
from data.sampling.batches import TrainBatches
from distributed.inputs import Inputs
from distributed.training.trainer import candidate_sampler, training_spans
from model.blocks.item_views import item_rows
from model.blocks.losses import sampled_cross_entropy
from model.protocol import ItemRows
from tests.distributed.spawn import run_ranks
from tests.distributed.test_sharding import build, config_of
from tests.distributed.toy import MODALITIES, NUM_CENTERS, NUM_ITEMS, toy_data, toy_planner, toy_system


def sampled_step(name):
    """Return a real step on the toy catalogue: recommender, batch, item plan and config."""
    overrides = ["model.dim=8", "model.num_heads=2", "model.dropout=0.1", "training.negatives.draws=12"]
    overrides += [f"model.name={name}"]
    if name == "mdsrec":
        overrides += ["model.mdsrec.center_dropout=0.1", "model.mdsrec.center_samples=5"]
    config = load_config(None, overrides)
    system, data = toy_system(config), toy_data()
    planner = toy_planner(system.recommender.needs)
    candidates = candidate_sampler(config, Inputs(data, None))
    step = TrainBatches(
        data=data,
        spans=training_spans(config, data),
        batch_size=60,
        seed=0,
        rank=0,
        world=1,
        planner=planner,
        candidates=candidates,
    )[0]
    return config, system.recommender.train().double(), step


@pytest.mark.parametrize("name", ["mdsrec", "sasrec"])
def test_operations_are_those_that_torch_counts(name):
    config, recommender, step = sampled_step(name)
    made = item_rows(torch.randn(len(step.plan.union_ids), 8, dtype=torch.float64), step.plan)
    leaf = lambda x: None if x is None else x.detach().requires_grad_()  # noqa: E731
    views = {m: leaf(x) for m, x in made.views.items()}
    centers = {m: leaf(x) for m, x in made.centers.items()}
    items = ItemRows(
        item_ids=made.item_ids, ids=leaf(made.ids), cooccurrence=leaf(made.cooccurrence), views=views, centers=centers
    )

    model, shape = ModelShape.of(config, len(MODALITIES), NUM_CENTERS), shape_of(step, step.plan)
    forward = forward_flops(model, shape)
    counter = FlopCounterMode(display=False)
    with counter:
        users = recommender.user_vectors(items, step.batch)
    assert counter.get_total_flops() == forward["towers"] + forward["centres"]
    batch = step.batch
    with counter:
        users = recommender.user_vectors(items, batch)
        candidates = batch.candidates, batch.log_weights
        channels, vectors = recommender.channels, recommender.item_vectors(items)
        sampled_cross_entropy(users, vectors, channels, batch.targets, *candidates, len(batch.targets)).backward()
    # In float64, because PyTorch does not count oneDNN's products. PyTorch counts neither sparse products nor in-place
    # ones, and one of the loss's three products is in place.
    assert counter.get_total_flops() == step_flops(model, shape) - 2 * forward["views"] - forward["loss"]
    entries = [step.plan.cooccurrence, *step.plan.views.values(), *step.plan.sampled_centers.values()]
    assert shape.sparse_entries == sum(len(rows.values) for rows in entries if rows is not None)


def record_messages(world, path):
    """Write the bytes that each all-to-all of a step sends to other ranks, summed over ranks, and an all-reduce's."""
    messages = []
    exchange = dist.all_to_all_single

    def recorded(output, input, *arguments, **options):
        splits = options.get("input_split_sizes") or [len(input) // world.size] * world.size
        messages.append((sum(splits) - splits[world.rank]) * input[:1].nbytes)
        return exchange(output, input, *arguments, **options)

    sharded, steps, batches = build(config_of("mdsrec sampled", "row_wise", "rowwise_adagrad"), world)
    sharded.system.train()
    ready = batches[0]
    dist.all_to_all_single = recorded
    list(steps.run([ready]))
    dist.all_to_all_single = exchange

    shards = [
        shard.tensor
        for value in sharded.parallel.state_dict().values()
        for shard in getattr(value, "local_shards", list)()
    ]
    state = [
        x.local_shards()[0].tensor
        for row in sharded.parallel.fused_optimizer.state_dict()["state"].values()
        for x in row.values()
    ]
    dense = torch.zeros(1_000_000)
    connections = RankConnections()
    world.barrier()
    before = connections.bytes_sent()
    dist.all_reduce(dense)
    world.barrier()
    sent = connections.bytes_sent() - before
    stored = sum(x.nbytes for x in shards + state)
    figures = torch.tensor([*messages, sent, len(ready.plan.union_ids), stored], dtype=torch.float64)
    total = figures.clone()
    dist.all_reduce(total)
    if world.is_first:
        path.write_text(json.dumps({"total": (total / world.size).tolist(), "first": figures.tolist()}))


@pytest.mark.parametrize("world", [3])
def test_bytes_are_those_of_the_collectives(world, tmp_path):
    run_ranks(world, record_messages, tmp_path / "figures")
    figures = json.loads((tmp_path / "figures").read_text())
    *messages, reduced, union, _ = figures["total"]
    predicted = bytes_sent(world, union, 8, dense_parameters=1_000_000)
    assert messages[:2] == pytest.approx([predicted["splits"], predicted["lengths"]], rel=1e-12)
    # Each rank owns about, but not exactly, 1/W of these few ids.
    assert messages[2:] == pytest.approx([predicted[m] for m in ("ids", "rows", "row gradients")], rel=0.03)
    assert reduced == pytest.approx(predicted["dense gradients"], rel=0.03)
    assert figures["first"][-1] == table_bytes(NUM_ITEMS, 8, world, "rowwise_adagrad")


def test_one_rank_sends_nothing_and_a_replicated_table_sends_its_gradient():
    assert sum(bytes_sent(1, 1000, 64, 50_000).values()) == 0
    assert bytes_sent(4, 1000, 64, 0, replicated_rows=500) == {"dense gradients": 1.5 * 4 * 500 * 64}


def test_distinct_items_are_those_of_a_simulation():
    rng = np.random.default_rng(0)
    weights = np.arange(1, 5001) ** -0.8
    chances = weights / weights.sum()
    drawn = [len(np.unique(np.r_[rng.choice(5000, 3000, p=chances), rng.integers(0, 5000, 1000)])) for _ in range(40)]
    one = np.ones(5000)
    exact = expected_distinct([Draws(3000, chances, one), Draws(1000, np.full(5000, 1 / 5000), one)])
    assert exact == pytest.approx(np.mean(drawn), rel=0.005)
    # 400 classes represent the items of Zipf's law, for any number of items.
    zipf = Draws.zipf(3000, 5000, 0.8, classes=400)
    assert zipf.sizes.sum() == 5000
    assert (zipf.sizes * zipf.chances).sum() == pytest.approx(1)
    assert expected_distinct([zipf]) == pytest.approx(expected_distinct([Draws(3000, chances, one)]), rel=0.005)


def test_unions_are_those_of_uniform_links():
    rng = np.random.default_rng(0)
    roles = rng.permutation(20_000)[:1500]
    unions = [len(np.unique(np.r_[roles, rng.integers(0, 20_000, 1500 * 9 + 640)])) for _ in range(20)]
    assert expected_union(20_000, 1500, 9, 640) == pytest.approx(np.mean(unions), rel=0.005)


def test_memory_of_ten_million_items():
    assert table_bytes(10_000_000, 64, 8, "adam") == 1_250_000 * 64 * 3 * 4
    assert sampler_bytes(10_000_000, 2) == 320_000_000

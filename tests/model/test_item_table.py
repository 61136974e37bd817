"""ItemTable is an nn.Embedding, on its own and in TorchRec's hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints

from model.blocks.item_table import TABLE, ItemTable, item_feature
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.model import small_case as case

IDS = torch.tensor([7, 0, 19, 3, 11])


def rows_and_gradient(lookup: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = lookup(item_feature(ids))[: len(ids)] if isinstance(lookup, ItemTable) else lookup(ids)
    (weight,) = lookup.parameters()
    (gradient,) = torch.autograd.grad((rows * torch.arange(1.0, 1 + rows.numel()).view(rows.shape)).sum(), weight)
    return rows, gradient


@pytest.mark.parametrize("ids", [IDS, torch.arange(20), torch.zeros(0, dtype=torch.int64)])
def test_equals_an_embedding_in_values_order_and_gradient(ids: torch.Tensor) -> None:
    table = ItemTable(num_items=20, dim=6, init_std=0.1)
    (weight,) = table.parameters()
    embedding = nn.Embedding.from_pretrained(weight.detach().clone(), freeze=False)
    for actual, expected in zip(rows_and_gradient(table, ids), rows_and_gradient(embedding, ids), strict=True):
        assert torch.equal(actual, expected)


def test_initialised_with_the_given_spread_and_seed() -> None:
    torch.manual_seed(1)
    (first,) = ItemTable(num_items=2000, dim=16, init_std=0.02).parameters()
    torch.manual_seed(1)
    (second,) = ItemTable(num_items=2000, dim=16, init_std=0.02).parameters()
    assert torch.equal(first, second)
    assert abs(first.std().item() - 0.02) < 0.001
    assert abs(first.mean().item()) < 0.001


@pytest.fixture
def world_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("sharding", ["row_wise", "data_parallel"])
@pytest.mark.usefixtures("world_of_one")
def test_a_wrapped_system_has_the_loss_and_gradients_of_the_plain_one(sharding: str) -> None:
    torch.use_deterministic_algorithms(False)  # TorchRec's kernels fill their own memory
    cat = case.catalogue(2)
    config = case.config("mdsrec", init_std=0.1)
    system = RecommenderSystem(
        ItemTable(num_items=case.NUM_ITEMS, dim=case.DIM, init_std=0.1), build_model(config, cat.info)
    ).eval()
    plan = case.plan(cat, system.recommender.needs).map(lambda x: x.float() if x.is_floating_point() else x)
    batch = case.batch(*case.histories())
    expected = case.loss(system, plan, batch)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in system.named_parameters()}
    system.zero_grad()
    weight = system.state_dict()["table.collection.embeddings.item_id.weight"].clone()
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=1, compute_device="cpu"),
        constraints={TABLE: ParameterConstraints(sharding_types=[sharding])},
    )
    sharders = [EmbeddingCollectionSharder(use_index_dedup=False)]
    placement = planner.collective_plan(system, sharders, dist.group.WORLD)
    wrapped = DistributedModelParallel(system, device=torch.device("cpu"), plan=placement, sharders=sharders)
    state = wrapped.state_dict()["table.collection.embeddings.item_id.weight"]
    local = state.local_shards()[0].tensor if sharding == "row_wise" else state
    with torch.no_grad():
        local.copy_(weight)
    loss = case.loss(wrapped, plan, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    loss.backward()
    if sharding == "row_wise":  # there the table's own fused optimiser has consumed its gradient
        del gradients["table.collection.embeddings.item_id.weight"]
    wrapped_gradients = {name: p.grad for name, p in wrapped.named_parameters() if name in gradients}
    torch.testing.assert_close(wrapped_gradients, gradients, rtol=1e-4, atol=1e-6)

"""The table in TorchRec's hands gives the rows, gradients and training of the table of one process."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from contracts.batch import Batch
from contracts.errors import InputError
from contracts.item_plan import ItemPlan
from distributed.checkpoints.contents import tensors_of
from distributed.torchrec.parallel import wrap
from distributed.torchrec.table import ShardedItemTable
from distributed.world import world_of_one
from model.blocks.item_table import ItemTable
from model.system import RecommenderSystem
from model.zoo import build_model
from tests.distributed.test_sharding import build, config_of, run_steps
from tests.model import small_case as case
from tests.model.test_item_table import EVERY_KIND_OF_IDS, rows_and_gradient

WEIGHT = "table.collection.embeddings.item_id.weight"


@pytest.mark.parametrize("as_one", [False, True])
@pytest.mark.parametrize("ids", EVERY_KIND_OF_IDS)
def test_equals_the_table_of_one_process(ids: torch.Tensor, as_one: bool) -> None:
    table = ShardedItemTable(num_items=20, dim=6, init_std=0.1, as_one=as_one)
    (weight,) = table.parameters()
    plain = ItemTable(num_items=20, dim=6, init_std=0.1)
    plain.weight.data.copy_(weight.data)
    for actual, expected in zip(rows_and_gradient(table, ids), rows_and_gradient(plain, ids), strict=True):
        assert torch.equal(actual, expected)
    assert [name for name, _ in table.named_parameters()] == [name for name, _ in plain.named_parameters()]


@pytest.mark.parametrize("as_one", [False, True])
@pytest.mark.parametrize("ids", EVERY_KIND_OF_IDS)
def test_a_feature_brings_the_sums_for_which_torchrec_would_wait(ids: torch.Tensor, as_one: bool) -> None:
    feature = ShardedItemTable(num_items=20, dim=6, init_std=0.1, as_one=as_one).feature(ids)
    for moved in (feature, feature.to(torch.device("cpu"))):
        assert moved._length_per_key == [int(moved.lengths().sum())] == [max(1, len(ids))]
        assert moved._offset_per_key == [0, max(1, len(ids))]


@pytest.mark.parametrize("is_split", [True, False])
def test_a_wrapped_system_has_the_loss_and_gradients_of_the_plain_one(is_split: bool) -> None:
    torch.use_deterministic_algorithms(False)  # TorchRec's kernels fill their own memory
    cat = case.catalogue(2)
    config = case.config("mdsrec", init_std=0.1)
    system = RecommenderSystem(
        ItemTable(num_items=case.NUM_ITEMS, dim=case.DIM, init_std=0.1), build_model(config, cat.info)
    ).eval()
    plan = case.plan(cat, system.recommender.needs).map(lambda x: x.float() if x.is_floating_point() else x)
    batch = case.batch(*case.histories())
    expected = loss_of(system, system, plan, batch)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in system.named_parameters()}
    system.zero_grad()
    weight = system.state_dict()[WEIGHT].clone()
    with world_of_one() as world:
        wrapped = wrap(system, (torch.optim.SGD, 0.1) if is_split else None, world)
        state = wrapped.parallel.state_dict()[WEIGHT]
        local = state.local_shards()[0].tensor if is_split else state
        with torch.no_grad():
            local.copy_(weight)
        loss = loss_of(wrapped.parallel, wrapped.system, plan, batch)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        loss.backward()
    if is_split:  # there the table's own fused optimiser has consumed its gradient
        torch.testing.assert_close(local, weight - 0.1 * gradients.pop(WEIGHT), rtol=1e-4, atol=1e-6)
    wrapped_gradients = {name: p.grad for name, p in wrapped.parallel.named_parameters() if name in gradients}
    torch.testing.assert_close(wrapped_gradients, gradients, rtol=1e-4, atol=1e-6)


def loss_of(called: torch.nn.Module, system: RecommenderSystem, plan: ItemPlan, batch: Batch) -> torch.Tensor:
    return called(SimpleNamespace(feature=system.table.feature(plan.union_ids), plan=plan, batch=batch))


@pytest.mark.parametrize("model", ["mdsrec sampled repeats", "sasrec", "bert4rec sampled"])
def test_training_in_one_process_equals_torchrecs_replicated_table(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, weights and the states of the optimisers are the same numbers under the same names."""
    config = config_of(model, "data_parallel", "adam")
    found = []
    for uses_torchrec in (False, True):
        monkeypatch.setattr("distributed.sharding._needs_torchrec", lambda *_, answer=uses_torchrec: answer)
        with world_of_one() as world:
            sharded, steps, batches = build(config, world)
            assert sharded.uses_torchrec is uses_torchrec
            losses = run_steps(steps, batches, 0, 6)
            found.append((losses, {name: value.clone() for name, value in tensors_of(sharded).items()}))
    assert found[0][0] == found[1][0]
    assert found[0][1].keys() == found[1][1].keys()
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]), name


def test_without_torchrec_a_run_that_needs_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed.torchrec", None)
    with world_of_one() as world:
        with pytest.raises(InputError, match=r"table.sharding=row_wise: .* needs TorchRec and FBGEMM .*num_workers=1"):
            build(config_of("sasrec", "row_wise", "sgd"), world)
        build(config_of("sasrec", "data_parallel", "sgd"), world)

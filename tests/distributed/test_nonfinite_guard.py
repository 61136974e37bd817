"""If the loss or gradient of a step is not finite on any rank, the step changes nothing on all ranks."""

import json

import numpy as np
import pytest
import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor

from contracts.errors import InputError
from distributed.optimizers import NamedOptimizer, Optimizers
from distributed.training.nonfinite_guard import GuardedOptimizer
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import config_of, records
from tests.distributed.spawn import run_ranks
from tests.distributed.test_sharding import build
from tests.distributed.test_sharding import config_of as toy_config

POISONED = 2


def poison(system, kind, step):
    """Make the loss of one forward pass, or only its gradient, not finite."""
    seen = []

    def hook(module, arguments, loss):  # noqa: ARG001
        if torch.is_grad_enabled():
            seen.append(1)
        if len(seen) - 1 != step:
            return loss
        if kind == "gradient":
            loss.register_hook(lambda gradient: gradient * np.inf)
            return loss
        return loss * torch.tensor(np.nan if kind == "nan" else np.inf)

    system.recommender.register_forward_hook(hook)


def train_some(world, sharding, numbers, kind=None):
    sharded, steps, batches = build(toy_config("mdsrec", sharding, "adagrad"), world)
    if kind is not None and world.rank == world.size - 1:
        poison(sharded.system, kind, POISONED)
    sharded.system.train()
    batches.set_epoch(0)
    taken = [share is not None for share in steps.run([batches[n] for n in numbers])]
    state = sharded.system.state_dict().items()
    return taken, {name: (v.local_tensor() if isinstance(v, ShardedTensor) else v).clone() for name, v in state}


def skipped_on_all(world, sharding):
    for kind in ("nan", "inf", "gradient"):
        taken, found = train_some(world, sharding, [0, 1, 2, 3], kind)
        assert taken == [True, True, False, True], kind
        if kind == "gradient" and sharding == "row_wise":  # rows with finite gradients of the other rank are updated
            assert all(value.isfinite().all() for value in found.values())
            continue
        _, expected = train_some(world, sharding, [0, 1, 3])
        for name, value in expected.items():
            assert torch.equal(found[name], value), (kind, name)


@pytest.mark.parametrize("sharding", ["data_parallel", "row_wise"])
def test_a_poisoned_step_is_skipped_on_all_ranks(sharding):
    run_ranks(2, skipped_on_all, sharding)


def test_too_many_skipped_steps_end_the_run_and_name_the_batches(folders, tmp_path, monkeypatch):
    watched = GuardedOptimizer.watch
    calls = []

    def watch(self, share):
        calls.append(1)
        return watched(self, share * np.nan if 2 < len(calls) < 5 or len(calls) > 8 else share)

    monkeypatch.setattr(GuardedOptimizer, "watch", watch)
    config = config_of(folders, tmp_path / "run", "sasrec", "training.max_skipped_steps=2", "training.max_epochs=9")
    with (
        world_of_one() as world,
        pytest.raises(InputError, match=r"3 steps in a row .* last at step 11; .*skipped"),
    ):
        train(config, world)
    files = sorted((tmp_path / "run/skipped").glob("*.json"))
    assert [int(file.stem[5:]) for file in files] == [3, 4, 9, 10, 11]
    batch = json.loads(files[0].read_text())
    assert len(batch["users"]) == len(batch["starts"]) == len(batch["lengths"]) > 0
    assert all(np.isfinite(record["loss"]) for record in records(tmp_path / "run"))


def test_a_training_of_which_no_step_was_taken_fails(folders, tmp_path, monkeypatch):
    watched = GuardedOptimizer.watch
    monkeypatch.setattr(GuardedOptimizer, "watch", lambda self, share: watched(self, share * np.nan))
    config = config_of(folders, tmp_path / "run", "sasrec", "training.max_steps=2")
    with world_of_one() as world, pytest.raises(InputError, match=r"every step .* last at step 2; .*skipped"):
        train(config, world)


def test_gradients_are_clipped_to_their_norm():
    parameter = torch.nn.Parameter(torch.zeros(4))
    with world_of_one():
        inner = NamedOptimizer({"p": parameter}, torch.optim.SGD([parameter], lr=1.0))
        optimizer = GuardedOptimizer(Optimizers({"p": inner}), [parameter], 0.5)
        parameter.grad = torch.full((4,), 3.0)
        optimizer.step()
    assert optimizer.norm == pytest.approx(6.0)
    torch.testing.assert_close(parameter.detach(), torch.full((4,), -0.25), rtol=1e-5, atol=0)

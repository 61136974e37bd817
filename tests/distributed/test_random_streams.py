"""Random numbers of a step depend on its purpose, seed, number and rank, and on nothing else."""

from dataclasses import replace

import torch

from configs.loading import load_config
from contracts.item_plan import ItemNeeds
from distributed.inputs import Inputs
from distributed.random_streams import seed_for
from distributed.training import trainer
from distributed.training.trainer import candidate_sampler
from distributed.world import World, world_of_one
from tests.distributed import runs
from tests.distributed.test_sharding import build, config_of
from tests.distributed.toy import toy_data, toy_planner


def drawn(*key):
    seed_for(*key)
    return tuple(torch.rand(4).tolist())


def test_a_stream_follows_from_each_part_of_its_key():
    keys = [("step", 3, 5, 1), ("ranking test", 3, 5, 1), ("step", 4, 5, 1), ("step", 3, 6, 1), ("step", 3, 5, 2)]
    # These keys have the same sums, or the same digits in a row, as others. Their streams must differ all the same.
    keys += [("step", 5, 3, 1), ("step", 1, 5, 3), ("step", 35, 1, 1), ("step", 3, 51, 1), ("step", 3, 5, 11)]
    first = [drawn(*key) for key in keys]
    assert len(set(first)) == len(keys)
    assert [drawn(*key) for key in keys] == first


def test_cpu_and_gpu_are_seeded_alike_as_torch_does(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    seed_for("step", 3, 5, 1)
    assert not seeds or torch.cuda.is_initialized()
    seeds.clear()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    found = drawn("step", 3, 5, 1)
    assert seeds == [torch.initial_seed()]
    monkeypatch.undo()
    torch.manual_seed(seeds[0])
    assert tuple(torch.rand(4).tolist()) == found


def config_with_dropout(**more):
    config = config_of("sasrec", "data_parallel", "sgd")
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.5}), **more})


def losses_of(config, world, rank, first):
    """Return the losses of two steps, of which the first has the number `first`, with the dropout of a rank."""
    _, steps, batches = build(config, world)
    steps.sharded.system.train()
    steps.world = replace(world, rank=rank)
    return [float(share) for share in steps.run((batches[0], batches[1]), first=first)]


def test_dropout_differs_by_rank_step_and_seed_and_by_nothing_else():
    config = config_with_dropout()
    cases = [(config, 0, 0), (config, 1, 0), (config, 0, 7), (config_with_dropout(seed=1), 0, 0)]
    with world_of_one() as world:
        found = [losses_of(case, world, rank, first) for case, rank, first in cases]
        torch.rand(3)  # other draws before a step must not matter
        assert losses_of(config, world, 0, 0) == found[0]
    assert len({losses[1] for losses in found}) == len(cases)


def test_step_numbers_continue_over_epochs(folders, tmp_path, monkeypatch):
    """Step 3 of the second epoch has other random numbers than step 3 of the first epoch."""
    seen = []
    monkeypatch.setattr("distributed.training.step.seed_for", lambda *key: (seen.append(key), seed_for(*key)))
    config = runs.config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=2", "seed=5")
    with world_of_one() as world:
        trainer.train(config, world)
    assert seen == [("step", 5, number, 0) for number in range(len(seen))]
    assert len(seen) > 20


def test_orders_and_candidates_follow_the_seed_of_the_run():
    settings = ["training.negatives.draws=12", "training.negatives.in_batch=false", "model.name=sasrec"]
    found = []
    for seed in (0, 1):
        config = load_config(None, [*settings, f"seed={seed}"])
        planner, world = toy_planner(ItemNeeds()), World.alone(torch.device("cpu"))
        batches = trainer.training_batches(config, Inputs(toy_data(), None), planner, world)
        candidates = candidate_sampler(config, Inputs(toy_data(), None)).sample(0, 0, batches[0].batch.targets.numpy())
        found.append((batches[0].batch.users.tolist(), candidates[0].tolist()))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]

"""Contrastive pre-training on one, two and three ranks: the same losses and weights, also if a rank has no targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.loading import load_config
from configs.schema import Config
from data.sampling.batches import TrainBatches
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.step import TrainSteps
from distributed.training.trainer import training_batches, training_spans
from distributed.world import World, world_of_one
from model.missrec import MISSRec
from tests.distributed.runs import config_of as run_config
from tests.distributed.spawn import run_ranks
from tests.distributed.test_sharding import run_steps
from tests.distributed.toy import NUM_ITEMS, toy_data, toy_planner, toy_system
from tests.systems import settings_without_noise

STEPS = 12
SYSTEMS = {
    "msm4sr": ("model.msm4sr.mixup=0", "model.msm4sr.project_states=true", "model.msm4sr.cross_modal_weight=0.2"),
    "msm4sr unmasked": ("model.msm4sr.mixup=0", "model.msm4sr.mask_missing=false"),
    "missrec": (
        "model.missrec.use_ids=false",
        "model.missrec.sequence_weight=0.2",
        "model.missrec.diversity_weight=0.01",
        "training.learning_rate=0.5",
    ),
    "unisrec": ("model.unisrec.use_ids=false", "model.unisrec.sequence_weight=0.2"),
}
BATCHES = (29, 2)  # targets of a step; with two, one of three ranks has none


def config_of(system: str, batch_size: int) -> Config:
    name = system.split()[0]
    settings = [
        f"model.name={name}", "model.dim=8", "model.max_length=6", "model.num_heads=2", "model.init_std=0.3",
        f"model.{name}.objective=contrastive", f"training.batch_size={batch_size}", "training.optimizer=sgd",
        "training.learning_rate=0.05", f"model.{name}.temperature=0.5", *settings_without_noise(name), *SYSTEMS[system],
    ]  # fmt: skip
    return load_config(None, settings)


def train(world: World, folder: Path) -> None:
    """Write the losses and the final weights of each system and batch size."""
    for system in SYSTEMS:
        for batch_size in BATCHES:
            config = config_of(system, batch_size)
            torch.manual_seed(0)
            built = toy_system(config)
            if isinstance(built.recommender, MISSRec):  # as a clustering before the epoch would
                torch.nn.init.normal_(built.recommender.interests[1:])
                built.recommender.interest_of += torch.arange(NUM_ITEMS, dtype=torch.int32)[:, None] % 7 + 1
            sharded = shard(built, config, NUM_ITEMS, world)
            data = toy_data()
            batches = TrainBatches(
                data=data,
                spans=training_spans(config, data),
                batch_size=batch_size,
                seed=0,
                rank=world.rank,
                world=world.size,
                planner=toy_planner(sharded.system.recommender.needs),
                step_plans=config.model.is_contrastive,
            )
            assert batches.plan is None
            if batch_size < world.size:
                own = [len(batches[step].batch.targets) for step in range(STEPS)]
                assert world.sum(own.count(0)) == STEPS * (world.size - batch_size), "no rank has an empty share"
            steps = TrainSteps(sharded=sharded, plan=None, config=config, world=world)
            losses = run_steps(steps, batches, 0, STEPS)
            weights = {name: x.flatten().tolist() for name, x in sharded.system.named_parameters()}
            if world.is_first:
                path = folder / f"{system} {batch_size} on {world.size}.json"
                path.write_text(json.dumps({"losses": losses, "weights": weights}))


def test_losses_and_weights_agree_for_any_number_of_ranks(tmp_path: Path) -> None:
    with world_of_one() as one:
        train(one, tmp_path)
    for world in (2, 3):
        run_ranks(world, train, tmp_path)
    first = {}
    for system in SYSTEMS:
        for batch_size in BATCHES:
            found = [json.loads((tmp_path / f"{system} {batch_size} on {n}.json").read_text()) for n in (1, 2, 3)]
            losses = np.array(found[0]["losses"])[:, 0]
            first[f"{system} {batch_size}"] = losses[0]
            assert batch_size < 9 or losses[-4:].mean() < losses[:4].mean() - 0.05, "nothing was learned"
            for other in found[1:]:
                np.testing.assert_allclose(other["losses"], found[0]["losses"], rtol=2e-5, atol=1e-7, err_msg=system)
                for name, weight in found[0]["weights"].items():
                    np.testing.assert_allclose(other["weights"][name], weight, rtol=2e-5, atol=2e-6, err_msg=name)

    run_ranks(2, without_gathering, tmp_path)
    alone = json.loads((tmp_path / "unisrec 29 on 2.json").read_text())["losses"]
    assert alone[0][0] < first["unisrec 29"] - 0.1, "fewer negatives would not have been noticed"


@pytest.mark.parametrize(("settings", "has_step_plans"), [((), False), (("model.msm4sr.objective=contrastive",), True)])
def test_a_run_plans_the_items_of_each_step_if_it_needs_no_others(
    folders: Path, tmp_path: Path, settings: tuple[str, ...], has_step_plans: bool
) -> None:
    config = run_config(folders, tmp_path / "run", "msm4sr", *settings)
    inputs = open_inputs(config)
    planner = inputs.planner(build_system(config, inputs).recommender.needs)
    batches = training_batches(config, inputs, planner, World.alone(torch.device("cpu")))
    assert (batches.plan is None) == has_step_plans


def without_gathering(world: World, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distributed.sharding.rows_of_all_ranks", lambda rows: rows)
        train(world, folder)

"""Checkpoints of 1 to 4 ranks are loaded by 1 to 4 ranks: the same metrics to the last digit, and no state is lost."""

import json

import pytest
import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor

from distributed.checkpoints.contents import tensors_of
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.saving import Checkpoints
from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.inference.scoring import SPLITS
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import config_of
from tests.distributed.spawn import run_ranks

MODELS = {
    "mdsrec": ("table.sharding=row_wise", "training.negatives.draws=15"),
    "sasrec": ("table.sharding=data_parallel",),
}


def config_for(folders, run, model):
    # 70 items cannot be divided evenly by four ranks, and in blocks of 30 one of the ranks has no items.
    return config_of(folders, run, model, *MODELS[model], "training.max_epochs=1")


def opened(config, world):
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    return sharded, inputs


def train_and_save(world, folders, root):
    for model in MODELS:
        train(config_for(folders, root / f"{model}-{world.size}", model), world)


def evaluate_and_save_again(world, folders, root, writers):
    for model in MODELS:
        for wrote in writers:
            run = root / f"{model}-{wrote}"
            found = evaluate(run_config(str(run)), world, "best")
            config = config_for(folders, run, model)
            sharded, inputs = opened(config, world)
            progress, loss = Checkpoints(str(run), world).load("latest", sharded, inputs.fingerprints)
            again = root / f"{model}-{wrote}-{world.size}"
            Checkpoints(str(again), world).save(sharded, progress, loss)
            if world.is_first:
                (again / "found.json").write_text(json.dumps(found))
                for split in SPLITS:
                    (run / f"evaluation-best-ranks-{split}.parquet").rename(again / f"ranks-{split}.parquet")


def everything(folders, run, model):
    """Return the tensors of the latest checkpoint, unsharded."""
    with world_of_one() as world:
        sharded, inputs = opened(config_for(folders, run, model), world)
        Checkpoints(str(run), world).load("latest", sharded, inputs.fingerprints)
        found = tensors_of(sharded).items()
        return {k: (v.local_tensor() if isinstance(v, ShardedTensor) else torch.as_tensor(v)).clone() for k, v in found}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("writers", "readers"),
    [((1, 3), (2, 4)), pytest.param((1, 2, 3, 4), (1, 2, 3, 4), marks=pytest.mark.slow)],
    ids=["four moves", "sixteen moves"],
)
def test_moves_between_numbers_of_ranks(folders, tmp_path, writers, readers):
    for ranks in writers:
        run_ranks(ranks, train_and_save, folders, tmp_path)
    for ranks in readers:
        run_ranks(ranks, evaluate_and_save_again, folders, tmp_path, writers)
    for model in MODELS:
        for wrote in writers:
            own = json.loads((tmp_path / f"{model}-{wrote}/metrics.json").read_text())
            expected = everything(folders, tmp_path / f"{model}-{wrote}", model)
            assert any("optimizer" in key for key in expected)
            for read in readers:
                again = tmp_path / f"{model}-{wrote}-{read}"
                found = json.loads((again / "found.json").read_text())
                assert (found["test"], found["details"]) == (own["test"], own["details"]), (model, wrote, read)
                for name in (f"ranks-{split}.parquet" for split in SPLITS):
                    assert (again / name).read_bytes() == (tmp_path / f"{model}-{wrote}" / name).read_bytes()
                assert find_checkpoint(str(again), "latest", {})[1].world == read
                for name, value in everything(folders, again, model).items():
                    assert torch.equal(value, expected[name]), (model, wrote, read, name)

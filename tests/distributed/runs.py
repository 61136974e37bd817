"""Small runs that tests start, interrupt and compare."""

import json

import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor

from configs.loading import load_config
from distributed.checkpoints.saving import Checkpoints
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.world import world_of_one


def config_of(folders, run, model="mdsrec", *more):
    settings = [
        f"dataset={folders}/dataset", f"graph={folders}/graph", f"run={run}", f"model.name={model}", "model.dim=8",
        "model.num_heads=2", "model.max_length=8", "training.batch_size=64", "training.learning_rate=0.01",
        "model.dropout=0.2", "training.max_epochs=4", "evaluation.user_batch=50", "evaluation.item_block=30",
    ]  # fmt: skip
    return load_config(None, [*settings, *more])


def records(run):
    kept = ("step", "epoch", "loss", "loss_by_channel", "valid")
    return [
        {k: r[k] for k in kept if k in r} for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    ]


def weights(run, config):
    with world_of_one() as world:
        inputs = open_inputs(config)
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        Checkpoints(str(run), world).load("latest", sharded, {})
        state = sharded.system.state_dict().items()
        return {name: (v.local_tensor() if isinstance(v, ShardedTensor) else v).clone() for name, v in state}


SAMPLED = ("training.negatives.draws=15", "model.mdsrec.center_samples=3")
REPEAT_GAINS = (-1.5, 0.5, 1.0)  # one for each channel, for models that learn gains of repeats


def set_repeat_gains(system):
    repeats = system.recommender.repeats
    if repeats is not None:
        with torch.no_grad():
            repeats.weight.copy_(torch.tensor(REPEAT_GAINS[: len(repeats.weight)]))

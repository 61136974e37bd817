"""Runs that start from another run, for tests: their sources, their settings and their weights."""

from torch.distributed._shard.sharded_tensor import ShardedTensor

from configs.loading import load_config
from distributed.checkpoints.saving import Checkpoints
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from jobs.prepare_data import prepare
from tests.distributed.runs import config_of

TABLE = "table.collection.embeddings.item_id.weight"
POSITIONS = "recommender.encoder.positions.weight"
SHARDINGS = ("data_parallel", "row_wise")
SHORT = "training.max_epochs=2"


def system_for(config, world):
    inputs = open_inputs(config)
    return inputs, shard(build_system(config, inputs), config, inputs.dataset.num_items, world)


def own_values(sharded):
    """Return this rank's numbers of each weight, and the first row that it has of a split table."""
    found = {}
    for name, value in sharded.system.state_dict().items():
        if isinstance(value, ShardedTensor):
            (part,) = value.local_shards()
            found[name] = part.metadata.shard_offsets[0], part.tensor.detach().numpy().copy()
        else:
            found[name] = 0, value.detach().numpy().copy()
    return found


def weights_at(run, which="best"):
    """Return the weights of a checkpoint, unsharded."""
    config = load_config(str(run / "config.yaml"))
    with world_of_one() as world:
        inputs, sharded = system_for(config, world)
        Checkpoints(str(run), world).load(which, sharded, inputs.fingerprints, weights_only=True)
        return {name: value for name, (_, value) in own_values(sharded).items()}


def fresh_weights(config):
    with world_of_one() as world:
        return {name: value for name, (_, value) in own_values(system_for(config, world)[1]).items()}


def started(folders, run, source, *more, model="sasrec"):
    return config_of(folders, run, model, SHORT, f"training.start_from={source}", *more)


def same_bytes(one, other):
    return one.tobytes() == other.tobytes()


def make_sources(folders, root):
    """Make runs of SASRec with a replicated and with a split table."""
    for sharding in SHARDINGS:
        with world_of_one() as world:
            train(config_of(folders, root / sharding, "sasrec", SHORT, f"table.sharding={sharding}", "seed=7"), world)
    return root


def make_unisrec(folders, root):
    """Make a run of UniSRec on the shared dataset, and another dataset with features of the same widths."""
    with world_of_one() as world:
        train(config_of(folders, root / "source", "unisrec", SHORT, "model.unisrec.use_ids=true"), world)
    prepare("synthetic", str(root / "dataset"), num_users=60, num_items=70, seed=4)
    return root

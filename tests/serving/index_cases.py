"""Items, users and indexes for tests of `serving/index`."""

from contextlib import contextmanager

import numpy as np
import torch

from data.sequences import Targets
from distributed.inference.scoring import Scorer
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.world import world_of_one
from evaluation.item_blocks import ItemBlocks
from evaluation.ranking import top_items
from evaluation.user_batches import user_batch
from serving.index.build import build_index
from serving.index.kinds import IndexOptions
from serving.index.of_system import build_index_of
from serving.index.search import VectorIndex
from tests.distributed.runs import config_of, set_repeat_gains

SYSTEMS = {
    "sasrec": (),
    "mdsrec": ("model.learn_repeats=true", "evaluation.cooccurrence_weight=0.7"),
    "missrec": (),
}


RUN = {"run": "runs/a", "step": "7"}  # what an index belongs to


def build(vectors, folder, **more):
    """Build an index of some vectors."""
    return build_index(blocks_from(vectors), folder, num_items=len(vectors), widths=[vectors.shape[1]], **more)


def blocks_from(vectors, size=7):
    """Return blocks of some vectors, as `build_index` reads them."""

    def read(start, stop):
        for first in range(start // size * size, stop, size):
            yield first, vectors[first : first + size]

    return read


def items_of(vectors, size=16, pair_scores=None):
    """Return the same vectors as the exact ranking reads them."""
    tensor = torch.from_numpy(vectors)
    return ItemBlocks(
        encode=lambda ids: tensor[torch.from_numpy(ids)],
        num_items=len(vectors),
        item_block=size,
        rank=0,
        world=1,
        held_bytes=np.inf,
        pair_scores=pair_scores,
    )


def users_of(vectors, gains=()):
    """Return one batch of users with gains (user, item, gain)."""
    rows, items, values = (np.array(column) for column in zip(*gains, strict=True)) if gains else ([], [], [])
    return user_batch(
        torch.from_numpy(vectors),
        np.full(len(vectors), -1),
        np.asarray(items, dtype=np.int64),
        np.asarray(rows, dtype=np.int64),
        np.asarray(values, dtype=np.float32),
    )


def built(vectors, folder, widths=None, shard_items=1 << 20, **options):
    build_index(
        blocks_from(vectors),
        folder,
        num_items=len(vectors),
        widths=widths or [vectors.shape[1]],
        options=IndexOptions(**options),
        shard_items=shard_items,
    )
    return VectorIndex.open(folder)


def exact_lists(users, items, k):
    """Return the exact ranking's lists of some batches: ids and scores."""
    ids, scores = zip(*top_items([users], items, k), strict=True)
    return torch.cat(ids).numpy(), torch.cat(scores).numpy()


def nearest(vectors, queries, depth):
    """Return the items with the greatest inner products and these, by score and then id: [B, depth] each."""
    scores = queries @ vectors.T
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return ids, np.take_along_axis(scores, ids, 1)


@contextmanager
def system_users(folders, system, tmp_path, hide=True):
    """Yield the next users of a small untrained system in batches, its items, its fusion and a flat index of it."""
    config = config_of(folders, tmp_path / "run", system, "model.init_std=0.5", *SYSTEMS[system])
    inputs = open_inputs(config)
    targets = Targets(inputs.dataset, "next")
    users, positions = targets.locate(np.arange(len(targets)))
    with world_of_one() as world:
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        set_repeat_gains(sharded.system)
        recommender = sharded.system.recommender
        if recommender.fusion is not None:
            recommender.fusion.weight.data.fill_(0.8)
        scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world)
        with scorer.evaluating(len(users), "ranking next", item_passes=1) as (items, tick):
            (batches,) = scorer.groups(users, positions, hide, items, tick)
            build_index_of(scorer, tmp_path / "index", shard_items=32, belongs_to={"system": system})
            yield batches, items, recommender.fusion, VectorIndex.open(tmp_path / "index")

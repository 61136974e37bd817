"""Ranks and recommendations are bit-identical for held or streamed items, any groups of users and any ranks."""

import numpy as np
import pytest

from configs.loading import load_config
from distributed.inference.scoring import Scorer
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.world import world_of_one
from tests.distributed.runs import set_repeat_gains
from tests.distributed.spawn import run_ranks

SAMPLED = ("training.negatives.draws=15", "model.mdsrec.center_samples=3")
COOCCURRENCE = ("evaluation.cooccurrence_weight=0.7",)
CASES = [
    ("popularity",),
    ("sasrec", "table.sharding=row_wise"),
    ("mdsrec",),
    ("mdsrec", "table.sharding=row_wise", *SAMPLED),
    ("mdsrec", "model.learn_repeats=true", "evaluation.mask_history=false", *COOCCURRENCE),
    ("sasrec", *COOCCURRENCE),
    ("itemknn", *COOCCURRENCE),
]
USER_BATCH = 16


def config_of(folders, model, *more):
    settings = [
        f"dataset={folders}/dataset", f"graph={folders}/graph", f"model.name={model}", "model.dim=8",
        "model.num_heads=2", "model.max_length=8", "model.init_std=0.5",
        f"evaluation.user_batch={USER_BATCH}", "evaluation.item_block=9",
        "evaluation.mask_history=true",
    ]  # fmt: skip
    return load_config(None, [*settings, *more])


class Bar:
    """A `Track` that records how far each progress bar got."""

    def __init__(self):
        self.bars = {}

    def __call__(self, loop, total, label):
        for item in loop:
            yield item
            done, _ = self.bars.get(label, (0, total))
            self.bars[label] = (done + 1, total)


def results(world, folders, case, held_bytes, users_per_pass):
    """Return the ranks of "valid", the recommendations with their scores, and the states of the progress bars."""
    config, bar = config_of(folders, *case), Bar()
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    set_repeat_gains(sharded.system)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world, track=bar)
    scorer.held_bytes, scorer.users_per_pass = held_bytes, users_per_pass
    ranked = scorer.rank("valid")
    lists = list(scorer.recommend(6, mask_history=True))
    found = [ranked.users, ranked.items, ranked.ranks, *(np.concatenate(part) for part in zip(*lists, strict=True))]
    return [x.tobytes() for x in found], bar.bars


def on_rank(world, folders, expected, held_bytes, users_per_pass):
    for case, wanted in zip(CASES, expected, strict=True):
        found, _ = results(world, folders, case, held_bytes, users_per_pass)
        assert found == wanted, case


@pytest.mark.parametrize(("world", "held_bytes", "users_per_pass"), [(2, np.inf, 65536), (3, 0, 2 * USER_BATCH)])
def test_ranks_and_lists_are_those_of_one_process_to_the_last_bit(folders, world, held_bytes, users_per_pass):
    with world_of_one() as one:
        expected = [results(one, folders, case, np.inf, 65536)[0] for case in CASES]
    run_ranks(world, on_rank, folders, expected, held_bytes, users_per_pass)


@pytest.mark.parametrize("case", CASES)
def test_streaming_and_groups_change_nothing(folders, case):
    with world_of_one() as one:
        expected, _ = results(one, folders, case, np.inf, 65536)
        for held_bytes, users_per_pass in ((np.inf, USER_BATCH), (0, 65536), (0, 3 * USER_BATCH)):
            found, bars = results(one, folders, case, held_bytes, users_per_pass)
            assert found == expected
            assert set(bars) == {"ranking valid", "ranking next"}
            for done, total in bars.values():
                assert done == total

"""How a scorer divides its work: sizes of groups of users, random streams, and what it forgets between rankings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distributed.inference import scoring
from distributed.inference.scoring import Scorer
from distributed.inference.vectors import CenterSums
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.world import world_of_one
from experiments.case_page.channel_scoring import ChannelScorer
from tests.distributed.test_scoring import COOCCURRENCE, config_of

USERS = 120  # of the dataset in `folders`: eight batches of 16, the last of 8


@pytest.fixture
def world():
    with world_of_one() as one:
        yield one


def scorer_of(folders, world, model, *more):
    config = config_of(folders, model, *more)
    inputs = open_inputs(config)
    sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
    return Scorer(sharded=sharded, inputs=inputs, config=config, world=world)


def sizes_of_groups(scorer):
    """Return the number of batches of each group of users, and the number of pairs with a gain of each batch."""
    pairs, original = [], scorer.user_batch

    def counting(**given):
        found = original(**given)
        pairs.append(found[1])
        return found

    scorer.user_batch = counting
    positions = scorer.inputs.dataset.valid_end.astype(np.int64)
    with scorer.evaluating(USERS, "test", item_passes=1) as (blocks, tick):
        groups = scorer.groups(np.arange(USERS), positions, True, blocks, tick)
        return [len(held) for held in groups], pairs


@pytest.mark.parametrize(
    ("users", "sizes"), [(65536, [8]), (48, [3, 3, 2]), (47, [2, 2, 2, 2]), (16, [1] * 8), (1, [1] * 8)]
)
def test_a_group_has_as_many_batches_as_users_per_pass_allows(folders, world, users, sizes):
    scorer = scorer_of(folders, world, "popularity")
    scorer.users_per_pass = users
    assert sizes_of_groups(scorer)[0] == sizes


def test_a_group_ends_with_the_batch_whose_pairs_exceed_the_limit(folders, world, monkeypatch):
    scorer = scorer_of(folders, world, "itemknn", *COOCCURRENCE)
    _, pairs = sizes_of_groups(scorer)
    limit = pairs[0] + pairs[1]
    monkeypatch.setattr(scoring, "_MAX_PAIRS", limit)
    sizes, _ = sizes_of_groups(scorer_of(folders, world, "itemknn", *COOCCURRENCE))
    ends = np.cumsum(sizes)
    totals = [(sum(pairs[end - size : end]), pairs[end - 1]) for size, end in zip(sizes, ends, strict=True)]
    assert sizes[0] == 2
    assert ends[-1] == 8
    assert len(sizes) > 2
    for total, last in totals[:-1]:
        assert total - last < limit <= total


def test_pairs_with_the_items_of_all_ranks_are_counted(folders, world):
    """All ranks must end a group after the same batch, although they hold different items."""
    scorer = scorer_of(folders, world, "itemknn", *COOCCURRENCE)
    users, positions = np.arange(8), scorer.inputs.dataset.valid_end[:8].astype(np.int64)
    found = []
    for owned in (True, False):
        blocks = SimpleNamespace(owns=lambda items, owned=owned: np.full(len(items), owned))
        batch, pairs = scorer.user_batch(
            users=users, positions=positions, vectors=torch.zeros(8, 1), hide=True, rates=scorer.rates(8), blocks=blocks
        )
        found.append((pairs, len(batch.gains)))
    assert found[0][0] == found[1][0] > 0
    assert found[0][1] > found[1][1] == 0


class Seen(Exception):
    """Raised when a ranking begins."""


def seed_of(scorer, begin):
    """Return the seed of the default generator at the beginning of a ranking."""

    def look(**_):
        raise Seen(torch.initial_seed())

    scorer.encoder.item_blocks = look
    with pytest.raises(Seen) as seen:
        begin(scorer)
    return seen.value.args[0]


def test_gates_that_are_noisy_in_rankings_have_a_stream_for_each_split_seed_and_rank(folders, world):
    scorer = scorer_of(folders, world, "popularity")
    other = scorer_of(folders, world, "popularity", "seed=1")
    seeds = []
    for rank in (0, 1):
        scorer.world = replace(world, rank=rank)
        seeds += [seed_of(scorer, lambda s, split=split: s.rank(split)) for split in ("valid", "test")]
    scorer.world = world
    assert seed_of(scorer, lambda s: s.rank("valid")) == seeds[0]
    assert len({*seeds, seed_of(other, lambda s: s.rank("valid"))}) == 5
    cases = scorer_of(folders, world, "sasrec")
    users, positions = np.arange(4), cases.inputs.dataset.valid_end[:4].astype(np.int64)
    assert seed_of(cases, lambda s: ChannelScorer(s).study(users, positions, 5)) == seeds[1], (
        "cases are drawn as the test is"
    )


def test_a_ranking_is_of_the_weights_as_they_are_and_of_no_dropout(folders, world):
    scorer = scorer_of(folders, world, "mdsrec", "model.dropout=0.5")
    before = scorer.rank("test").ranks
    scorer.system.train()
    assert (scorer.rank("test").ranks == before).all()
    assert not scorer.system.training
    with torch.no_grad():
        for name, parameter in scorer.system.named_parameters():
            if "table" in name:
                parameter.copy_(parameter.roll(1, 0))
    after = scorer.rank("test").ranks
    assert (after != before).any()
    fresh = Scorer(
        sharded=SimpleNamespace(system=scorer.system), inputs=scorer.inputs, config=scorer.config, world=world
    )
    assert (fresh.rank("test").ranks == after).all()


@pytest.mark.parametrize("rule", ["pessimistic", "optimistic", "id"])
def test_ties_are_ranked_by_the_rule_that_is_chosen(folders, world, rule):
    scorer = scorer_of(folders, world, "popularity", f"evaluation.ties={rule}", "evaluation.mask_history=false")
    ranked, counts = scorer.rank("test"), scorer.inputs.dataset.popularity()
    assert len(ranked.items) == USERS
    for item, rank in zip(ranked.items, ranked.ranks, strict=True):
        tied = np.flatnonzero(counts == counts[item])
        ties = {"pessimistic": len(tied) - 1, "optimistic": 0, "id": int((tied < item).sum())}
        assert rank == 1 + (counts > counts[item]).sum() + ties[rule]
    assert len(np.unique(counts)) < len(counts), "there are ties"


class Clusters:
    """Four items in three clusters; the second has no member."""

    def clusters(self, modality):  # noqa: ARG002
        return np.array([0, 2, -1, 0])

    def num_centers(self, modality):  # noqa: ARG002
        return 3


def test_streamed_centres_are_the_means_of_their_members(world):  # noqa: ARG001
    views = torch.tensor([[1.0, 2.0], [3.0, 4.0], [50.0, 60.0], [7.0, 8.0]])
    sums = CenterSums(SimpleNamespace(relations=Clusters()), ("image",))
    for ids in ([0, 1], [], [2, 3]):
        sums.add(np.array(ids, dtype=np.int64), SimpleNamespace(views={"image": views[ids]}))
    assert sums.means()["image"].tolist() == [[4.0, 5.0], [0.0, 0.0], [3.0, 4.0]]

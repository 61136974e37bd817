"""Runs that train a share of the users: what they learn from, what they refuse, and how they go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.errors import InputError
from data.sampling.negatives import target_counts
from data.sampling.user_share import UserShare
from distributed.checkpoints.run_folder import open_run_folder
from distributed.inputs import open_inputs
from distributed.sharding import fill_table
from distributed.training.trainer import candidate_sampler, check_trainable, train
from distributed.world import World, world_of_one
from graph_builder.build import build_graph
from graph_builder.build_inputs import OfChosenUsers
from graph_builder.executor import SerialExecutor
from serving.loading import load
from tests.distributed.runs import config_of, records, weights
from tests.distributed.spawn import run_ranks
from tests.distributed.test_resume import train_until_done
from tests.systems import settings_without_noise

FEW = ("training.user_share=0.15", "seed=4", "training.max_epochs=2")
DRAWN = ("training.negatives.draws=15", "training.negatives.popularity_share=1")


def few_users_graph(folders: Path, root: Path) -> Path:
    """Build the graph of the chosen users."""
    config = config_of(folders, root / "none", "mdsrec", *FEW, "graph_options.num_centers=4")
    dataset = open_inputs(config_of(folders, root / "none", "sasrec", *FEW)).dataset
    users = UserShare(config.training.user_share, config.seed)
    source = OfChosenUsers(dataset, users.chosen(dataset))
    build_graph(source, str(root / "graph"), config.graph_options, 4, SerialExecutor(), user_share=users.share)
    return root / "graph"


def on_ranks(world: World, folders: Path, run: Path) -> None:
    train(config_of(folders, run, "sasrec", *FEW, *settings_without_noise("sasrec")), world)


@pytest.mark.long
def test_only_the_chosen_users_are_learned_from_and_all_are_ranked(folders: Path, tmp_path: Path) -> None:
    """With draws by popularity, an item that only other users have keeps its initial row, bit for bit."""
    config = config_of(folders, tmp_path / "run", "sasrec", *FEW, *DRAWN)
    with world_of_one() as world:
        metrics = train(config, world)
    inputs = open_inputs(config)
    data, users = inputs.dataset, UserShare(0.15, 4)
    assert metrics is not None
    assert metrics["details"]["test"]["targets"] == data.num_users
    counts = users.popularity(data)
    unseen = (counts == 0) & (data.popularity() > 0)
    assert unseen.sum() > 3, "every item is in the sequence of a chosen user"
    state = weights(tmp_path / "run", config)
    (table,) = (name for name in state if name.startswith("table."))
    began = {table: torch.empty_like(state[table])}
    fill_table(began, config.model.init_std, config.seed)
    moved = (began[table] != state[table]).any(dim=1).numpy()
    assert not moved[unseen].any()
    assert moved[counts > 1].all()
    sampler = candidate_sampler(config, inputs)
    assert sampler is not None
    drawn = sampler.sample(0, 0, np.flatnonzero(target_counts(users.of(data), counts))[:3])[0]
    assert not set(drawn.tolist()) & set(np.flatnonzero(unseen).tolist())
    popular = load(tmp_path / "run").recommend([[]], k=5)  # what somebody without a history gets
    assert set(np.argsort(-counts, kind="stable")[:5].tolist()) == set(popular.items[0].tolist())


@pytest.mark.ranks
@pytest.mark.slow
def test_the_same_users_are_trained_on_any_number_of_ranks(folders: Path, tmp_path: Path) -> None:
    with world_of_one() as world:
        on_ranks(world, folders, tmp_path / "1")
    run_ranks(2, on_ranks, folders, tmp_path / "2")
    found, expected = ([record["loss"] for record in records(tmp_path / n)] for n in ("2", "1"))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_another_share_is_another_run(folders: Path, tmp_path: Path) -> None:
    config = config_of(folders, tmp_path / "run", "sasrec", *FEW, "training.max_epochs=1")
    with world_of_one() as world:
        train(config, world)
    for share in ("0.2", "1.0"):
        other = config_of(folders, tmp_path / "run", "sasrec", *FEW, f"training.user_share={share}")
        with pytest.raises(
            InputError, match=rf"was begun with training\.user_share=0\.15 and the command says {share}"
        ):
            open_run_folder(other)


@pytest.mark.long
def test_a_broken_run_ends_as_an_undisturbed_one(folders: Path, tmp_path: Path) -> None:
    more = (*FEW, "training.batch_size=16")
    with world_of_one() as world:
        whole = train(config_of(folders, tmp_path / "straight", "sasrec", *more), world)
    steps = ("training.checkpoint_steps=2",)
    found = train_until_done(config_of(folders, tmp_path / "broken", "sasrec", *more, *steps), (3,))
    assert whole is not None
    assert found["details"] == whole["details"]
    assert records(tmp_path / "broken") == records(tmp_path / "straight")


@pytest.mark.parametrize("more", [("mdsrec",), ("sasrec", "evaluation.cooccurrence_weight=0.5")])
def test_a_graph_of_all_users_is_refused(folders: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    model, *settings = more
    with pytest.raises(
        InputError,
        match=r"counts the sequences of all users, but training\.user_share=0\.15; build .*seed=4",
    ):
        open_inputs(config_of(folders, tmp_path / "run", model, *settings, *FEW))


@pytest.mark.long
def test_a_graph_of_the_chosen_users_is_trained_on_and_serves_no_other_run(folders: Path, tmp_path: Path) -> None:
    graph = few_users_graph(folders, tmp_path)
    manifest = json.loads((graph / "manifest.json").read_text())
    assert manifest["parameters"]["user_share"] == 0.15
    config = config_of(folders, tmp_path / "run", "mdsrec", *FEW, f"graph={graph}", "training.max_epochs=1")
    inputs = open_inputs(config)
    check_trainable(config, inputs)
    counts = UserShare(0.15, 4).popularity(inputs.dataset)
    assert inputs.graph is not None
    indptr, _, _ = inputs.graph.cooccurrence_rows(np.arange(inputs.dataset.num_items))
    assert not np.diff(indptr)[counts == 0].any(), "an item of other users has co-occurrences"
    assert np.diff(indptr)[counts > 0].any()
    with world_of_one() as world:
        assert train(config, world) is not None
    for other, message in (
        ("training.user_share=1.0", r"a share 0\.15 of the users, but training\.user_share=1\.0"),
        ("seed=5", r"of the users that seed=4 chooses, but seed=5 trains others"),
    ):
        with pytest.raises(InputError, match=message):
            open_inputs(config_of(folders, tmp_path / "run", "mdsrec", *FEW, f"graph={graph}", other))


def test_a_share_without_a_user_is_refused(folders: Path, tmp_path: Path) -> None:
    config = config_of(folders, tmp_path / "run", "sasrec", "training.user_share=0.000001")
    with pytest.raises(InputError, match=r"no user whose sequence is trained has two .*raise training\.user_share"):
        check_trainable(config, open_inputs(config))

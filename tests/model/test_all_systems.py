"""What every registered system must do, whatever its model: a system is in these tests as soon as it is registered.

`test_windows.py` and `tests/distributed/test_sharding.py` have the other two: windows equal prefix rows, and any number
of ranks and either sharding give the same losses.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from configs.loading import load_config
from configs.schema import Config
from configs.systems.registry import SYSTEMS
from data.dataset import Dataset, write_dataset
from data.prepare.features import AlignedRows
from data.writing import DatasetContent, Sequences
from distributed.inference.scoring import Scorer
from distributed.inputs import Inputs, build_system, open_inputs
from distributed.sharding import ShardedSystem, shard
from distributed.training.trainer import train
from distributed.world import World, world_of_one
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from tests.distributed.runs import config_of, records, weights
from tests.distributed.test_resume import train_until_done
from tests.systems import TRAINED, settings_without_noise

GRAPH = ("graph_options.num_centers=6", "graph_options.num_neighbors=5")  # of the planted datasets


def new_system(config: Config, inputs: Inputs, world: World) -> ShardedSystem:
    return shard(build_system(config, inputs), config, inputs.dataset.num_items, world)


def needed(name: str) -> list[str]:
    return ["evaluation.cooccurrence_weight=1"] if SYSTEMS[name].scores_by_cooccurrence else []


@pytest.mark.parametrize("name", TRAINED)
def test_an_untrained_system_ranks_as_chance_does(folders: Path, tmp_path: Path, name: str) -> None:
    """Of 70 items the mean rank is 35.5. Scores that knew the target would rank it higher."""
    ranks = []
    for seed in range(3):
        config = config_of(folders, tmp_path / "run", name, f"seed={seed}")
        with world_of_one() as world:
            inputs = open_inputs(config)
            scorer = Scorer(sharded=new_system(config, inputs, world), inputs=inputs, config=config, world=world)
            ranks.append(scorer.rank("test").ranks)
    num_items = inputs.dataset.num_items
    assert 0.4 * num_items < np.mean(ranks) < 0.6 * num_items
    assert np.mean(np.array(ranks) <= 10) < 2 * 10 / num_items


def without_last_items(dataset: Dataset) -> Dataset:
    """Return the dataset without each user's last item, the test target."""
    cut = copy.copy(dataset)
    last = dataset.offsets[1:] - 1
    assert np.array_equal(last - dataset.offsets[:-1], dataset.valid_end), "more than one test target"
    cut.items = np.delete(dataset.items, last)
    cut.offsets = dataset.offsets - np.arange(len(dataset.offsets))
    return cut


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("hidden", [False, True], ids=["history kept", "history hidden"])
def test_the_place_in_a_recommended_list_is_the_rank(folders: Path, tmp_path: Path, name: str, hidden: bool) -> None:
    """Recommend from sequences that end before the test target, and find the target in the lists."""
    settings = ("model.init_std=0.5", f"evaluation.mask_history={str(hidden).lower()}", "evaluation.ties=id")
    config = config_of(folders, tmp_path / "run", name, *settings, *needed(name))
    with world_of_one() as world:
        inputs = open_inputs(config)
        sharded = new_system(config, inputs, world)
        ranked = Scorer(sharded=sharded, inputs=inputs, config=config, world=world).rank("test")
        cut = Inputs(without_last_items(inputs.dataset), inputs.graph, inputs.trains_on_graph)
        scorer = Scorer(sharded=sharded, inputs=cut, config=config, world=world)
        lists = list(scorer.recommend(inputs.dataset.num_items, mask_history=hidden))
    users, items = (np.concatenate([part[place] for part in lists]) for place in (0, 1))
    assert np.array_equal(users, ranked.users)
    found = items == ranked.items[:, None]
    listed = found.any(axis=1)  # a target that is in the history is in no list from which the history is hidden
    assert listed.all() or (hidden and listed.mean() > 0.5)
    assert np.array_equal(found.argmax(axis=1)[listed] + 1, ranked.ranks[listed])


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINED)
def test_a_run_that_was_interrupted_ends_as_an_undisturbed_one(folders: Path, tmp_path: Path, name: str) -> None:
    """Dropout and noise are on, so every random stream must continue where it was."""
    common = ("training.max_epochs=2",)
    straight = config_of(folders, tmp_path / "straight", name, *common)
    with world_of_one() as world:
        whole = train(straight, world)
    broken = config_of(folders, tmp_path / "broken", name, *common, "training.checkpoint_steps=3")
    found = train_until_done(broken, (5,))
    assert whole is not None
    assert records(tmp_path / "broken") == records(tmp_path / "straight")
    assert (found["test"], found["details"]) == (whole["test"], whole["details"])
    expected = weights(straight.run, straight)
    for parameter, value in weights(broken.run, broken).items():
        assert torch.equal(value, expected[parameter]), parameter


def write_planted(root: Path, items: np.ndarray, features: dict[str, np.ndarray], num_valid: int = 1) -> None:
    """Write a dataset of sequences, int64 [users, length], and its graph. The last item of each is for the test."""
    num_users, length = items.shape
    num_items = len(features["text"])
    content = DatasetContent(
        sequences=Sequences(
            offsets=length * np.arange(num_users + 1),
            items=items.ravel(),
            timestamps=None,
            train_end=np.full(num_users, length - 1 - num_valid),
            valid_end=np.full(num_users, length - 1),
        ),
        user_source_ids=pa.array([f"u{user}" for user in range(num_users)]),
        item_source_ids=pa.array([f"i{item}" for item in range(num_items)]),
        features={name: AlignedRows(x.astype(np.float32), name) for name, x in features.items()},
    )
    dataset = write_dataset(str(root / "dataset"), content)
    options = load_config(None, GRAPH).graph_options
    build_graph(dataset, str(root / "graph"), options, 0, SerialExecutor())


def learned(root: Path, run: Path, name: str, *more: str) -> float:
    """Train a system on a planted dataset, and return the share of test targets that it ranks first."""
    settings = (
        "model.dim=16", "model.init_std=0.1", "training.batch_size=32", "training.learning_rate=0.01",
        "evaluation.ks=[1]", "training.metric=recall@1",
    )  # fmt: skip
    config = config_of(root, run, name, *settings, *GRAPH, *settings_without_noise(name), *more)
    with world_of_one() as world:
        found = train(config, world)
    assert found is not None
    return float(found["test"]["recall@1"])


@pytest.fixture(scope="module")
def successors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in which item i is always followed by item i + 1, and the last item by item 0."""
    root = tmp_path_factory.mktemp("successors")
    num_items, num_users, length = 40, 120, 9
    rng = np.random.default_rng(0)
    items = (rng.integers(0, num_items, num_users)[:, None] + np.arange(length)) % num_items
    write_planted(root, items, {name: rng.normal(size=(num_items, 8)) for name in ("image", "text")})
    return root


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINED)
def test_the_successor_of_the_last_item_is_learned(successors: Path, tmp_path: Path, name: str) -> None:
    settings = ["training.max_epochs=8"]
    if SYSTEMS[name].units[0] == "masks":
        # Many masks have few items around them, so it takes longer. Inputs are no longer than training rows, because
        # a state at a mask knows which items are near it by positions alone, and these must have been trained.
        settings = ["training.max_epochs=20", "training.learning_rate=0.005", "model.max_length=6"]
    assert learned(successors, tmp_path / "run", name, *settings) > 0.8  # at random 1 of 40


PRE_TRAINING = {
    "unisrec": ("model.unisrec.objective=contrastive", "model.unisrec.use_ids=false"),
    "msm4sr": ("model.msm4sr.objective=contrastive", "model.msm4sr.mixup=0.5"),
    "missrec": ("model.missrec.objective=contrastive", "model.missrec.use_ids=false"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", PRE_TRAINING)
def test_contrastive_pre_training_learns_the_successor(successors: Path, tmp_path: Path, name: str) -> None:
    """Inputs are changed as the authors change them, and an item is known by its features alone."""
    settings = ("training.max_epochs=8", f"model.{name}.item_dropout=0.2", *PRE_TRAINING[name])
    assert learned(successors, tmp_path / "run", name, *settings) > 0.5  # at random 1 of 40


CLASSES, KNOWN, NEW = (
    6,
    90,
    30,
)  # items 0..5 follow; then items that are followed, 15 known and 5 new ones of each class


@pytest.fixture(scope="module", params=["text", "image"])
def decided(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A dataset in which a feature decides what follows an item; the feature's name, and the folder.

    After an item comes the one that follows all items of its class. The class can be seen in one feature only, and the
    other feature is noise. The input of a test target ends with an item that is in no training sequence.
    """
    deciding: str = request.param
    root = tmp_path_factory.mktemp(deciding)
    rng = np.random.default_rng(0)
    num_users = 150
    followed = np.concatenate([rng.integers(0, KNOWN, (num_users, 3)), KNOWN + rng.integers(0, NEW, (num_users, 1))], 1)
    items = np.stack([CLASSES + followed, followed % CLASSES], axis=2).reshape(num_users, -1)
    class_of = np.concatenate([np.arange(CLASSES), np.arange(KNOWN + NEW) % CLASSES])
    noise = {name: rng.normal(size=(len(class_of), 8)) for name in ("image", "text")}
    features = noise | {deciding: rng.normal(size=(CLASSES, 8))[class_of] + 0.1 * noise[deciding]}
    write_planted(root, items, features, num_valid=2)  # an item that is decided, and the new item
    return deciding, root


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in TRAINED if not SYSTEMS[name].trains_on_graph])
def test_what_a_feature_decides_is_learned_by_the_systems_that_read_it(
    decided: tuple[str, Path], tmp_path: Path, name: str
) -> None:
    """The others show that nothing else gives the answer away."""
    deciding, root = decided
    config = config_of(root, tmp_path, name)
    reads = build_system(config, open_inputs(config)).recommender.needs.features
    found = learned(root, tmp_path / "run", name, "training.max_epochs=8", "training.learning_rate=0.003")
    if deciding in reads:  # at random 1 of 6
        assert found > 0.5
    else:
        assert found < 0.3

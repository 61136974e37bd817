"""Items that are held out of training leave no trace in it, and their ID rows keep their initial values bit for bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from configs.loading import load_config
from configs.schema import Config
from contracts.batch import Batch
from contracts.errors import InputError
from data.dataset import Dataset
from data.prepare.cold import ColdRule, choose_cold
from data.sampling.batches import assemble
from data.sampling.item_planner import positions_of
from data.sampling.spans import spans_before
from data.sequences import Targets
from distributed.inputs import build_system, open_inputs
from distributed.sharding import fill_table, shard
from distributed.training.trainer import candidate_sampler, check_trainable, train
from distributed.world import World, world_of_one
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from jobs.prepare_data import prepare
from tests.distributed.runs import config_of, records, weights
from tests.distributed.spawn import run_ranks
from tests.graph_builder.small_dataset import content
from tests.systems import settings_without_noise

NUM_USERS, NUM_ITEMS, SHARE = 40, 36, 0.2
NAMES = [f"i{item}" for item in range(NUM_ITEMS)]
COLD = choose_cold([pa.array(NAMES, pa.large_string())], ColdRule(share=SHARE))
HARD = ("training.negatives.draws=20", "training.negatives.hard_share=0.5", "training.negatives.popularity_share=0.3")
CENTERS = ("model.mdsrec.center_samples=3",)
DRAWN = ("training.negatives.draws=20", "training.negatives.in_batch=false")
ROW_WISE = ("table.sharding=row_wise", "training.weight_decay=0.1")


def histories(leak: bool) -> dict[int, list[tuple[int, int]]]:
    """Items and times of each user. With `leak`, training parts have other interactions of cold items.

    The first user has each item once, so that items are numbered alike.
    """
    rng = np.random.default_rng(0)
    found = {0: [*((item, 10 * item) for item in range(NUM_ITEMS)), (1, 1000), (2, 1001)]}
    warm, cold = np.flatnonzero(~COLD), np.flatnonzero(COLD)
    for user in range(1, NUM_USERS):
        rows = [(int(item), 10 * place) for place, item in enumerate(rng.choice(warm, 6))]
        planted = [(int(item), 10 * int(rng.integers(0, 6)) + 5) for item in rng.choice(cold, 2)]
        if leak:  # the same two cold items in every history, between others, and never those that are planted otherwise
            planted = [(int(cold[number % 2]), 10 * number + 6) for number in range(5)]
        targets = [(int(rng.choice(cold if user % 2 else warm)), 1000), (int(rng.choice(cold)), 1001)]
        found[user] = [*rows, *planted, *targets]
    return found


def write_folders(root: Path, leak: bool, **options: Any) -> Path:
    """Write a dataset with two features, and its graph."""
    rows = [(user, item, time) for user, own in histories(leak).items() for item, time in own]
    users, items, times = zip(*rows, strict=True)
    root.mkdir()
    table = {"user": [f"u{user}" for user in users], "item": [NAMES[item] for item in items], "timestamp": times}
    pq.write_table(pa.table(table), root / "raw.parquet")
    rng = np.random.default_rng(1)
    for name, count in (("image", NUM_ITEMS - 4), ("text", NUM_ITEMS)):
        vectors = list(rng.normal(size=(count, 6)).astype(np.float32))
        pq.write_table(pa.table({"item": NAMES[:count], "vector": vectors}), root / f"{name}.parquet")
    dataset = prepare(
        "table", str(root / "dataset"), str(root / "raw.parquet"), min_user_interactions=1, min_item_interactions=1,
        features={name: str(root / f"{name}.parquet") for name in ("image", "text")}, **options,
    )  # fmt: skip
    dataset.validate()
    graph = load_config(None, ["graph_options.num_centers=4", "graph_options.num_neighbors=5"]).graph_options
    build_graph(dataset, str(root / "graph"), graph, 0, SerialExecutor())
    return root


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("cold") / "planted", leak=False, cold_item_share=SHARE)


def small(folders: Path, run: Path, model: str, *more: str) -> Config:
    graph = ("graph_options.num_centers=4", "graph_options.num_neighbors=5")
    return config_of(folders, run, model, *graph, "training.max_epochs=1", *more)


@pytest.mark.long
def test_the_planted_interactions_would_leak(tmp_path: Path) -> None:
    """Without held-out items, the two inputs of the test below differ in popularity and in co-occurrence."""
    one, other = (write_folders(tmp_path / str(leak), leak) for leak in (False, True))
    popularity = [Dataset.open(str(root / "dataset")).popularity() for root in (one, other)]
    assert (popularity[0][COLD] != popularity[1][COLD]).any()
    graphs = [content(root / "graph") for root in (one, other)]
    assert any(graphs[0][name] != graphs[1][name] for name in graphs[0] if name.startswith("cooccurrence"))
    assert any(graphs[0][name] != graphs[1][name] for name in graphs[0] if name.startswith("neighbors"))


@pytest.mark.long
def test_training_interactions_of_cold_items_change_no_byte(planted: Path, tmp_path: Path) -> None:
    other = write_folders(tmp_path / "leak", leak=True, cold_item_share=SHARE)
    one, two = (Dataset.open(str(root / "dataset")) for root in (planted, other))
    cold = one.cold_items()
    assert cold is not None
    assert cold.tolist() == COLD.tolist()
    dropped = [data.manifest["dropped"]["training_interactions_of_cold_items"] for data in (one, two)]
    assert dropped == [2 * (NUM_USERS - 1) + COLD.sum(), 5 * (NUM_USERS - 1) + COLD.sum()]
    assert one.fingerprint == two.fingerprint  # of all files: sequences, popularity, features
    assert one.manifest["split"]["cold_items"] == {"share": SHARE, "seed": 0, "count": int(COLD.sum())}
    assert not one.popularity()[COLD].any()
    places = np.arange(one.num_interactions) - np.repeat(one.offsets[:-1], np.diff(one.offsets))
    targets = one.items[places >= np.repeat(one.train_end, np.diff(one.offsets))]
    assert 0 < COLD[targets].mean() < 1
    assert content(planted / "graph") == content(other / "graph")
    more = (*HARD, *CENTERS, "model.learn_repeats=true", "evaluation.cooccurrence_weight=2")
    found = []
    for root, run in ((planted, tmp_path / "run"), (other, tmp_path / "other run")):
        config = small(root, run, "mdsrec", *more)
        with world_of_one() as world:
            metrics = train(config, world)
        assert metrics is not None
        found.append((records(run), metrics["test"], weights(run, config)))
    assert found[0][:2] == found[1][:2]
    for name, value in found[0][2].items():
        assert torch.equal(value, found[1][2][name]), name


def changed_rows(run: Path, config: Config) -> np.ndarray:
    """Return for each item whether training has changed its ID row."""
    state = weights(run, config)
    (name,) = (name for name in state if name.startswith("table."))
    began = {name: torch.empty_like(state[name])}
    fill_table(began, config.model.init_std, config.seed)
    return (began[name].view(torch.int32) != state[name].view(torch.int32)).any(dim=1).numpy()


CASES = [
    ("sasrec", ()),
    ("sasrec", ("training.loss=gbce",)),
    ("sasrecf", (*DRAWN, "table.optimizer=adagrad")),
    ("mdsrec", ("training.weight_decay=0.1",)),
    ("mdsrec", (*HARD, *CENTERS, *ROW_WISE)),
    ("mdsrec", (*DRAWN, "model.mdsrec.adjacency=sum")),
    ("bert4rec", ()),
    ("bert4rec", (*DRAWN, *ROW_WISE, "model.bert4rec.rows=windows")),
    ("unisrec", ("training.unit=prefixes",)),
    ("missrec", DRAWN),
    ("msm4sr", ROW_WISE),
]


@pytest.mark.long
@pytest.mark.parametrize(("model", "more"), CASES)
def test_the_rows_of_cold_items_stay_bit_for_bit(
    planted: Path, tmp_path: Path, model: str, more: tuple[str, ...]
) -> None:
    config = small(planted, tmp_path / "run", model, *more)
    with world_of_one() as world:
        assert train(config, world) is not None
    changed = changed_rows(tmp_path / "run", config)
    assert not changed[COLD].any()
    assert changed[~COLD].all()
    if model == "bert4rec":
        bias = weights(tmp_path / "run", config)["recommender.output_bias"]
        assert not bias[COLD].any()
        assert bias[~COLD].all()


ON_RANKS = [("mdsrec", ()), ("mdsrec", (*HARD, *CENTERS, *ROW_WISE))]


def calm(planted: Path, root: Path) -> list[Config]:
    """Settings without noise, in which ranks would differ, and with optimisers that do not enlarge rounding."""
    sgd = ("training.optimizer=sgd", "model.init_std=0.3", "training.learning_rate=0.1")
    return [
        small(planted, root / str(number), model, *more, *sgd, "table.optimizer=sgd", *settings_without_noise(model))
        for number, (model, more) in enumerate(ON_RANKS)
    ]


def train_all(world: World, planted: Path, root: Path) -> None:
    for config in calm(planted, root):
        assert train(config, world) is not None


@pytest.mark.slow
def test_two_ranks_train_as_one(planted: Path, tmp_path: Path) -> None:
    with world_of_one() as world:
        train_all(world, planted, tmp_path / "one")
    run_ranks(2, train_all, planted, tmp_path / "two")
    for one, two in zip(calm(planted, tmp_path / "one"), calm(planted, tmp_path / "two"), strict=True):
        runs = [Path(str(config.run)) for config in (one, two)]
        expected, found = weights(runs[0], one), weights(runs[1], two)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=f"{one.run}: {name}")
        for run, config in zip(runs, (one, two), strict=True):
            changed = changed_rows(run, config)
            assert changed.tolist() == (~COLD).tolist()


def loss_of(config: Config, *, sampled: bool) -> torch.Tensor:
    """Return the loss of the first training targets over the warm items.

    Either these are the catalogue, or they are the candidates of a sampled softmax, each with weight 1.
    """
    with world_of_one() as world:
        inputs = open_inputs(config)
        assert inputs.warm is not None
        system = shard(build_system(config, inputs), config, inputs.dataset.num_items, world).system
        planner = inputs.planner(system.recommender.needs)
        targets = Targets(inputs.dataset, "train")
        spans = spans_before(*targets.locate(np.arange(len(targets))), config.model.max_length)
        plan = planner.catalogue() if sampled else planner.plan(inputs.warm)
        batch: Batch = assemble(inputs.dataset, spans, len(targets), partial(positions_of, plan))
        if sampled:
            batch.candidates = torch.from_numpy(inputs.warm)
            batch.log_weights = torch.zeros(len(inputs.warm))
        rows = system.table(system.table.feature(plan.union_ids)) if system.table is not None else None
        system.eval()
        return system.recommender(rows, plan, batch).detach()


@pytest.mark.parametrize(
    ("model", "more"),
    [("sasrec", ()), ("sasrec", ("training.loss=gbce",)), ("mdsrec", ("model.learn_repeats=true",)), ("missrec", ())],
)
def test_the_full_softmax_is_a_sampled_one_of_all_warm_items(
    planted: Path, tmp_path: Path, model: str, more: tuple[str, ...]
) -> None:
    config = small(planted, tmp_path / "run", model, "model.init_std=0.3", *more)
    torch.testing.assert_close(loss_of(config, sampled=True), loss_of(config, sampled=False), rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(("model", "more"), [("mdsrec", ()), ("bert4rec", DRAWN)])
def test_holding_nothing_out_is_plain_training(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, more: tuple[str, ...]
) -> None:
    """A dataset in which every item is warm trains to the same bits as one that does not say so."""
    found = []
    for name in ("plain", "all warm"):
        config = config_of(folders, tmp_path / name, model, "training.max_epochs=1", *more)
        with world_of_one() as world:
            assert train(config, world) is not None
        found.append(weights(tmp_path / name, config))
        monkeypatch.setattr(Dataset, "cold_items", lambda dataset: np.zeros(dataset.num_items, bool))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_the_sampler_of_a_run_never_draws_a_cold_item(planted: Path, tmp_path: Path) -> None:
    config = small(planted, tmp_path / "run", "mdsrec", *HARD, *CENTERS, "training.negatives.draws=200")
    inputs = open_inputs(config)
    sampler = candidate_sampler(config, inputs)
    assert sampler is not None
    targets = np.flatnonzero(inputs.dataset.popularity() > 1)[:6]
    for step in range(20):
        ids, _ = sampler.sample(0, step, targets, 0.5)
        assert not COLD[ids].any()
        assert len(ids) > 20


def test_mdsrec_ranks_a_cold_item_by_its_warm_neighbours(planted: Path, tmp_path: Path) -> None:
    """Its vectors in the modalities are means of rows of warm items, whatever its own row is."""
    config = small(planted, tmp_path / "run", "mdsrec")
    inputs = open_inputs(config)
    assert inputs.graph is not None
    plan = inputs.planner(build_system(config, inputs).recommender.needs).catalogue()
    for modality, view in plan.views.items():
        has = inputs.dataset.presence(modality)
        for item in np.flatnonzero(COLD & has):
            used = view.indices[view.indptr[item] : view.indptr[item + 1]].numpy()
            assert len(used)
            assert not COLD[used].any()
            assert set(used) <= set(inputs.graph.neighbors(modality)[item].tolist())


def test_a_dataset_without_a_training_target_is_refused(tmp_path: Path) -> None:
    """Of each user, one training item is left, which has no item before it."""
    warm, cold = np.flatnonzero(~COLD), np.flatnonzero(COLD)
    rows = [[warm[u % len(warm)], cold[u % len(cold)], warm[0], cold[0]] for u in range(NUM_ITEMS)]
    (tmp_path / "x.txt").write_text("".join(f"u{u} {' '.join(NAMES[i] for i in own)}\n" for u, own in enumerate(rows)))
    least = {"min_user_interactions": 1, "min_item_interactions": 1}
    dataset = prepare("lists", str(tmp_path / "dataset"), str(tmp_path / "x.txt"), cold_item_share=SHARE, **least)
    assert dataset.train_end.tolist() == [1] * NUM_ITEMS
    config = config_of(tmp_path, tmp_path / "run", "sasrec")
    with pytest.raises(InputError, match="has two training items, so there is nothing to"):
        check_trainable(config, open_inputs(config))

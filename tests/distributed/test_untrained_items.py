"""How each system ranks items without a training interaction (docs/method.md explains the results).

Each user's items are of one group, whose texts are similar. One item of each group is in no training sequence: it is
only the last item of sequences, which is the test target.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from configs.loading import load_config
from data.dataset import write_dataset
from data.prepare.features import AlignedRows
from data.writing import DatasetContent, Sequences
from distributed.sharding import fill_table
from distributed.training.trainer import train
from distributed.world import world_of_one
from graph_builder.build import build_graph
from graph_builder.executor import SerialExecutor
from tests.distributed.runs import config_of, weights

# With 8 groups, the ranks of untrained items depended on the seed.
GROUPS, SIZE, USERS_PER_GROUP, LENGTH = 32, 6, 6, 9
NUM_ITEMS = GROUPS * SIZE
_MSM4SR_WITHOUT_IDS = "model.msm4sr.objective=contrastive"
UNTRAINED = np.arange(0, NUM_ITEMS, SIZE)  # the first of each group


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("untrained"), ("text",))


@pytest.fixture(scope="module")
def planted_with_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a second feature that says the same as the text."""
    return write_planted(tmp_path_factory.mktemp("untrained-image"), ("image", "text"))


def write_planted(root: Path, features: tuple[str, ...]) -> Path:
    rng = np.random.default_rng(0)
    histories = []
    for user in range(GROUPS * USERS_PER_GROUP):
        first = SIZE * (user % GROUPS)
        histories.append([*(first + rng.integers(1, SIZE, LENGTH - 1)), first])
    offsets = LENGTH * np.arange(len(histories) + 1)
    text = np.repeat(rng.normal(size=(GROUPS, 8)), SIZE, axis=0) + 0.1 * rng.normal(size=(NUM_ITEMS, 8))
    content = DatasetContent(
        sequences=Sequences(
            offsets=offsets,
            items=np.concatenate(histories).astype(np.int64),
            timestamps=None,
            train_end=np.full(len(histories), LENGTH - 2),
            valid_end=np.full(len(histories), LENGTH - 1),
        ),
        user_source_ids=pa.array([f"u{user}" for user in range(len(histories))]),
        item_source_ids=pa.array([f"i{item}" for item in range(NUM_ITEMS)]),
        features={name: AlignedRows(text.astype(np.float32), name) for name in features},
    )
    dataset = write_dataset(str(root / "dataset"), content)
    assert np.flatnonzero(dataset.popularity() == 0).tolist() == UNTRAINED.tolist()
    options = load_config(None, ["graph_options.num_centers=8", "graph_options.num_neighbors=4"]).graph_options
    build_graph(dataset, str(root / "graph"), options, 0, SerialExecutor())
    return root


def trained(planted: Path, run: Path, model: str, *more: str) -> tuple[dict[str, float], np.ndarray | None]:
    """Return test metrics of the untrained targets, and for each item whether training has changed its ID row."""
    settings = ("graph_options.num_centers=8", "graph_options.num_neighbors=4", "training.max_epochs=8", *more)
    config = config_of(planted, run, model, *settings)
    with world_of_one() as world:
        metrics = train(config, world)
    assert metrics is not None
    found = metrics["details"]["test"]["slices"]["target popularity 0"]
    assert found["targets"] == GROUPS * USERS_PER_GROUP
    if model in ("popularity", "itemknn") or {"model.unisrec.use_ids=false", _MSM4SR_WITHOUT_IDS} & set(more):
        return found, None
    state = weights(run, config)
    (name,) = (name for name in state if name.startswith("table."))
    began = {name: torch.empty_like(state[name])}
    fill_table(began, config.model.init_std, config.seed)
    return found, (began[name] != state[name]).any(dim=1).numpy()


@pytest.mark.parametrize("model", ["popularity", "itemknn"])
def test_counts_rank_them_last(planted: Path, tmp_path: Path, model: str) -> None:
    """Their counts and co-occurrences are 0, and items with equal scores rank above the target."""
    more = ("evaluation.cooccurrence_weight=1",) if model == "itemknn" else ()
    found, _ = trained(planted, tmp_path / "run", model, *more)
    assert found["recall@20"] < 0.03  # by chance 20 of 192


@pytest.mark.parametrize(
    "model",
    [
        "gru4rec",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("sasrec", "sasrecf", "gru4recf", "fdsa", "mmmlp")),
    ],
)
def test_a_full_softmax_pushes_their_id_rows_away(planted: Path, tmp_path: Path, model: str) -> None:
    """These items are candidates in every step and never targets."""
    found, moved = trained(planted, tmp_path / "run", model, "training.max_epochs=4")
    assert moved is not None
    assert moved.all()
    assert found["recall@20"] < 0.03  # by chance 20 of 192


@pytest.mark.long
@pytest.mark.parametrize("sharding", ["data_parallel", "row_wise"])
def test_rows_that_are_never_drawn_keep_their_initial_values(planted: Path, tmp_path: Path, sharding: str) -> None:
    """Draws by popularity never include these items. Uniform draws do."""
    more = (f"table.sharding={sharding}", "training.negatives.draws=15")
    by_popularity = trained(planted, tmp_path / "run", "sasrec", *more, "training.negatives.popularity_share=1")[1]
    assert by_popularity is not None
    assert np.flatnonzero(~by_popularity).tolist() == UNTRAINED.tolist()
    mixed = trained(planted, tmp_path / "mixed", "sasrec", *more)[1]
    assert mixed is not None
    assert mixed.all()


@pytest.mark.long
@pytest.mark.parametrize("more", [(), ("training.negatives.draws=15", "training.negatives.popularity_share=1")])
def test_the_views_of_mdsrec_rank_them_by_their_neighbours(
    planted: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Their texts are similar to those of their group, so their views consist mostly of rows of trained items.

    Their ID rows are part of the views of trained items, so they get gradients even if they are never drawn.
    """
    found, moved = trained(planted, tmp_path / "run", "mdsrec", *more)
    assert moved is not None
    assert moved.all()
    assert found["recall@20"] > 0.5


@pytest.mark.long
@pytest.mark.parametrize("more", [(), ("training.negatives.draws=15", "training.negatives.popularity_share=1")])
def test_unisrec_without_ids_ranks_them_by_their_texts(planted: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    found, _ = trained(planted, tmp_path / "run", "unisrec", "model.unisrec.use_ids=false", *more)
    assert found["recall@20"] > 0.5


@pytest.mark.long
def test_unisrec_with_ids_ranks_them_by_their_texts_too(planted: Path, tmp_path: Path) -> None:
    """Their ID rows are pushed away, as SASRec's are, but the vectors to which they are added are not."""
    found, moved = trained(planted, tmp_path / "run", "unisrec")
    assert moved is not None
    assert moved.all()
    assert found["recall@20"] > 0.5


@pytest.mark.long
@pytest.mark.parametrize("more", [(), (_MSM4SR_WITHOUT_IDS,)], ids=["with ids", "pre-trained without"])
def test_msm4sr_ranks_them_by_their_features(planted_with_image: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    found, moved = trained(planted_with_image, tmp_path / "run", "msm4sr", *more)
    assert moved is None or moved.all()
    assert found["recall@20"] > 0.5

"""Systems that must learn a planted pattern in a few epochs: the next item follows from the last one, or from texts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.dataset import write_dataset
from data.prepare.features import AlignedRows
from data.writing import DatasetContent, Sequences
from distributed.training.trainer import train
from distributed.world import world_of_one
from tests.distributed.runs import config_of

NUM_ITEMS, NUM_USERS, LENGTH, WIDTH = 60, 150, 8, 8
GROUPS = 10  # of items with similar texts


def write(root: Path, items: np.ndarray, text: np.ndarray) -> Path:
    """Write a dataset of users with items [NUM_USERS, LENGTH] each, whose last two are the targets."""
    content = DatasetContent(
        sequences=Sequences(
            offsets=LENGTH * np.arange(NUM_USERS + 1),
            items=items.astype(np.int64).reshape(-1),
            timestamps=None,
            train_end=np.full(NUM_USERS, LENGTH - 2),
            valid_end=np.full(NUM_USERS, LENGTH - 1),
        ),
        user_source_ids=pa.array([f"u{user}" for user in range(NUM_USERS)]),
        item_source_ids=pa.array([f"i{item}" for item in range(NUM_ITEMS)]),
        features={"text": AlignedRows(text.astype(np.float32), "text")},
    )
    write_dataset(str(root / "dataset"), content)
    return root


@pytest.fixture(scope="module")
def successors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next item is a fixed item after the last one; texts say nothing."""
    rng = np.random.default_rng(0)
    successor = np.roll(rng.permutation(NUM_ITEMS), 1)[np.argsort(rng.permutation(NUM_ITEMS))]
    items = np.empty((NUM_USERS, LENGTH), dtype=np.int64)
    items[:, 0] = rng.integers(0, NUM_ITEMS, NUM_USERS)
    for place in range(1, LENGTH):
        items[:, place] = successor[items[:, place - 1]]
    return write(tmp_path_factory.mktemp("successors"), items, rng.normal(size=(NUM_ITEMS, WIDTH)))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's items have similar texts. The test target of each user is an item that nobody has in training."""
    rng = np.random.default_rng(0)
    group = np.arange(NUM_USERS) % GROUPS
    size = NUM_ITEMS // GROUPS
    items = group[:, None] * size + rng.integers(1, size, (NUM_USERS, LENGTH))
    items[:, -1] = group * size
    text = np.repeat(rng.normal(size=(GROUPS, WIDTH)), size, axis=0) + 0.1 * rng.normal(size=(NUM_ITEMS, WIDTH))
    return write(tmp_path_factory.mktemp("texts"), items, text)


def recall(folders: Path, run: Path, model: str, *more: str) -> float:
    """Return Recall@10 on test after a short training; by chance it is 10 of 60."""
    with world_of_one() as world:
        metrics = train(config_of(folders, run, model, "graph=null", "training.batch_size=100", *more), world)
    assert metrics is not None
    return float(metrics["test"]["recall@10"])


@pytest.mark.parametrize("more", [(), ("training.negatives.draws=20",), ("model.mmmlp.feature_passes=1",)])
def test_mmmlp_learns_the_successor_of_the_last_item(successors: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    assert recall(successors, tmp_path / "run", "mmmlp", "training.max_epochs=12", *more) > 0.8


@pytest.mark.parametrize("use_ids", [True, False])
def test_unisrec_learns_the_successor_of_the_last_item(successors: Path, tmp_path: Path, use_ids: bool) -> None:
    more = ("training.max_epochs=12", f"model.unisrec.use_ids={use_ids}")
    assert recall(successors, tmp_path / "run", "unisrec", *more) > 0.8


@pytest.mark.parametrize("draws", ["null", "20"])
def test_unisrec_without_ids_ranks_new_items_by_their_texts(texts: Path, tmp_path: Path, draws: str) -> None:
    more = ("training.max_epochs=8", f"training.negatives.draws={draws}", "model.unisrec.use_ids=false")
    assert recall(texts, tmp_path / "run", "unisrec", *more) > 0.8
    assert recall(texts, tmp_path / "sasrec", "sasrec", "training.max_epochs=8") < 0.3, "IDs alone cannot know"

"""Every recipe of docs/transfer.md on data in which transfer must pay: pre-train, recommend without a step, fine-tune.

Two datasets share no item. In both, an item of class c is followed by any item of class c + 1, and features say the
class. So whoever has learned the rule from features of one dataset knows it in the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.loading import load_config
from configs.schema import Config
from distributed.inputs import open_inputs
from distributed.training.trainer import check_trainable, train
from distributed.world import world_of_one
from tests.distributed.start_runs import fresh_weights, weights_at
from tests.model.test_all_systems import write_planted
from tests.packages import ROOT

CLASSES, PER_CLASS, LENGTH = 8, 6, 8
CHANCE = 1 / CLASSES  # of the target to be among the first PER_CLASS
SMALL = (
    "model.dim=16", "model.num_heads=2", "model.ffn_dim=32", "model.max_length=8", "model.dropout=0.1",
    "model.init_std=0.1", "training.batch_size=128", "training.learning_rate=0.01", "training.patience=100",
    f"evaluation.ks=[{PER_CLASS}]", f"training.metric=recall@{PER_CLASS}", "evaluation.bootstrap_samples=10",
    "cluster.num_workers=1", "training.weight_decay=0",
)  # fmt: skip
FEW = ("training.user_share=0.06", "training.max_epochs=3")

# Preset of the pre-training, of the fine-tuning, settings of both for tiny data, and frozen weights that must not move.
RECIPES: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "UniSRec inductive": ("unisrec-pretrain", "unisrec-inductive", (), "recommender.encoder.layers."),
    "UniSRec transductive": ("unisrec-pretrain", "unisrec-transductive", (), "recommender.encoder.layers."),
    "MISSRec": ("missrec-pretrain", "missrec-finetune", (), "recommender.decoder."),
    "MSM4SR text": ("msm4sr-text-pretrain", "msm4sr-text-finetune", (), ""),
    "MSM4SR": ("msm4sr-pretrain", "msm4sr-finetune", (), ""),
}


SLOW = ("UniSRec transductive", "MSM4SR")


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a and b, each with a dataset and its graph; item i of either is of class i % CLASSES."""
    root = tmp_path_factory.mktemp("domains")
    of_class = {name: np.random.default_rng(9).normal(size=(CLASSES, 8)) for name in ("image", "text")}
    for name, num_users in (("a", 300), ("b", 250)):
        rng = np.random.default_rng(ord(name))
        classes = (rng.integers(0, CLASSES, num_users)[:, None] + np.arange(LENGTH)) % CLASSES
        items = classes + CLASSES * rng.integers(0, PER_CLASS, classes.shape)
        class_of = np.arange(CLASSES * PER_CLASS) % CLASSES
        features = {m: x[class_of] + 0.1 * rng.normal(size=(len(class_of), 8)) for m, x in of_class.items()}
        (root / name).mkdir()
        write_planted(root / name, items, features)
    return root


def config_of(preset: str, domain: Path, run: Path, *more: str) -> Config:
    places = (f"dataset={domain}/dataset", f"run={run}")
    return load_config(str(ROOT / "configs" / f"{preset}.yaml"), [*SMALL, *places, *more])


def trained(config: Config) -> dict[str, Any]:
    check_trainable(config, open_inputs(config))
    with world_of_one() as world:
        metrics = train(config, world)
    assert metrics is not None
    return metrics


def recall(metrics: dict[str, Any]) -> float:
    return float(metrics["test"][f"recall@{PER_CLASS}"])


@pytest.fixture(scope="module")
def pre_trained() -> dict[str, Path]:
    """The runs that were pre-trained on a, by preset; each is trained when it is first asked for."""
    return {}


def pre_train(preset: str, domains: Path, runs: dict[str, Path]) -> Path:
    if preset not in runs:
        runs[preset] = domains / preset
        trained(config_of(preset, domains / "a", runs[preset], "training.max_epochs=6"))
    return runs[preset]


@pytest.mark.long
@pytest.mark.parametrize("recipe", [pytest.param(r, marks=[pytest.mark.slow] * (r in SLOW)) for r in RECIPES])
def test_pre_training_on_one_dataset_pays_on_another(
    domains: Path, pre_trained: dict[str, Path], tmp_path: Path, recipe: str
) -> None:
    first, second, more, frozen = RECIPES[recipe]
    source = pre_train(first, domains, pre_trained)
    start = f"training.start_from={source}"
    without_step = trained(config_of(first, domains / "b", tmp_path / "zero", start, "training.max_epochs=0", *more))
    assert recall(without_step) > 4 * CHANCE

    tuned = trained(config_of(second, domains / "b", tmp_path / "tuned", start, *FEW, *more))
    scratch = ("training.start_from=null", "training.freeze=[]")
    fresh = trained(config_of(second, domains / "b", tmp_path / "fresh", *scratch, *FEW, *more))
    assert recall(tuned) > recall(fresh) + 0.15
    began, ended = weights_at(source), weights_at(tmp_path / "tuned", "latest")
    still = {name for name in ended.keys() & began.keys() if np.array_equal(began[name], ended[name])}
    assert not frozen or any(name.startswith(frozen) for name in still)
    assert bool(still) == bool(frozen)
    assert not frozen or not any("adaptor" in name and "gate" not in name for name in still), "adaptors are trained"


@pytest.mark.long
def test_mdsrec_begins_with_a_pre_trained_tower(domains: Path, pre_trained: dict[str, Path], tmp_path: Path) -> None:
    source = pre_train("mdsrec-pretrain", domains, pre_trained)
    graph = (f"graph={domains}/b/graph", "graph_options.num_centers=6", "graph_options.num_neighbors=5")
    config = config_of(
        "mdsrec-finetune",
        domains / "b",
        tmp_path / "run",
        f"training.start_from={source}",
        "training.max_epochs=0",
        *graph,
    )
    trained(config)
    tower, best, fresh = weights_at(source), weights_at(tmp_path / "run"), fresh_weights(config)
    of_text = [name for name in best if name.startswith("recommender.encoders.0.")]
    assert len(of_text) > 10
    for name, value in best.items():
        expected = tower[name.replace("encoders.0", "encoder")] if name in of_text else fresh[name]
        assert np.array_equal(value, expected), name

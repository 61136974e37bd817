"""Saved ranks: those of the metrics, the same bytes for any number of ranks, and none of an earlier result."""

import errno
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from distributed.inference import split_results
from distributed.inference.evaluate import evaluate
from distributed.inference.restore import run_config
from distributed.inference.scoring import SPLITS, Scorer
from distributed.inference.split_results import rank_splits
from distributed.inputs import build_system, open_inputs
from distributed.sharding import shard
from distributed.training.trainer import train
from distributed.world import world_of_one
from evaluation.item_groups import Grouping, ItemGroup
from evaluation.metrics import ranking_metrics
from evaluation.result_settings import score_settings
from evaluation.saved_ranks import open_ranks
from tests.distributed.runs import config_of
from tests.distributed.spawn import run_ranks

CASES = {
    "mdsrec": ("table.sharding=row_wise", "model.init_std=0.5", "evaluation.item_block=9"),
    "itemknn": ("evaluation.cooccurrence_weight=0.7", "evaluation.item_block=9"),
}
NAMES = [f"ranks-{split}.parquet" for split in SPLITS]


def in_thirds(data, split):  # noqa: ARG001
    """Return a grouping of the items by their number modulo 3."""
    groups = tuple(ItemGroup(name=n, targets=f"target {n}", candidates=n, size=1) for n in ("zero", "one", "two"))
    return (Grouping(name="training", groups=groups, labels=(np.arange(data.num_items) % 3).astype(np.int8)),)


def rank_and_save(world, folders, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_results, "groupings_of", in_thirds)
        _rank_and_save(world, folders, root)


def _rank_and_save(world, folders, root):
    for model, settings in CASES.items():
        config = config_of(folders, root / "run", model, *settings)
        inputs = open_inputs(config)
        sharded = shard(build_system(config, inputs), config, inputs.dataset.num_items, world)
        scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=world)
        folder = root / f"{model}-{world.size}"
        summaries = rank_splits(scorer, 7, folder / "metrics.json" if world.is_first else None)
        if world.is_first:
            (folder / "summaries.json").write_text(json.dumps(summaries))


def test_files_have_the_same_bytes_for_one_two_and_three_ranks(folders, tmp_path):
    with world_of_one() as one:
        rank_and_save(one, folders, tmp_path)
    for world in (2, 3):
        run_ranks(world, rank_and_save, folders, tmp_path)
    for model in CASES:
        expected = json.loads((tmp_path / f"{model}-1/summaries.json").read_text())
        for split, name in zip(SPLITS, NAMES, strict=True):
            content = (tmp_path / f"{model}-1" / name).read_bytes()
            assert (tmp_path / f"{model}-2" / name).read_bytes() == content
            assert (tmp_path / f"{model}-3" / name).read_bytes() == content
            table = pq.read_table(tmp_path / f"{model}-1" / name)
            ranks, own = table["rank"].to_numpy(), table["rank_in_training"].to_numpy()
            assert len(np.unique(ranks)) > 10
            assert len(np.unique(own)) > 5
            assert (own <= ranks).all()
            assert ranking_metrics(ranks, (10, 20, 50)) == expected[split]["metrics"]


@pytest.fixture
def run(folders, tmp_path):
    """A trained run."""
    with world_of_one() as world:
        train(config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1"), world)
    return tmp_path / "run"


def test_a_run_has_the_targets_of_its_dataset_and_says_how_they_were_ranked(run):
    config = run_config(str(run))
    dataset = open_inputs(config).dataset
    metrics = json.loads((run / "metrics.json").read_text())
    opened = open_ranks(run / "ranks-test.parquet")
    assert opened.facts.checkpoint_step == metrics["best_step"]
    assert opened.facts.fingerprints == {"dataset": dataset.fingerprint}
    assert opened.facts.settings == json.loads(json.dumps(score_settings(config.evaluation)))
    assert (opened.facts.split, opened.facts.model, opened.facts.seed) == ("test", "sasrec", 0)
    rows = pq.read_table(run / "ranks-test.parquet").to_pylist()
    lengths = np.diff(dataset.offsets)
    assert [row["user"] for row in rows] == dataset.user_source_ids().to_pylist()  # one target a user
    assert [row["position"] for row in rows] == (lengths - 1).tolist()
    last = dataset.items[dataset.offsets[1:] - 1]
    assert [row["item"] for row in rows] == dataset.item_source_ids().take(last).to_pylist()


def test_an_evaluation_with_other_settings_replaces_no_ranks(run):
    with world_of_one() as world:
        before = {name: (run / name).read_bytes() for name in NAMES}
        evaluate(run_config(str(run)), world, "best")
        evaluate(run_config(str(run), ["evaluation.mask_history=true"]), world, "best")
    assert {name: (run / name).read_bytes() for name in NAMES} == before
    assert {f"evaluation-best-{name}": (run / f"evaluation-best-{name}").read_bytes() for name in NAMES} == {
        f"evaluation-best-{name}": content for name, content in before.items()
    }
    hidden = run / "evaluation-best-mask_history=true-ranks-test.parquet"
    assert open_ranks(hidden).facts.settings["mask_history"] is True
    kept, masked = (pq.read_table(path)["rank"].to_numpy() for path in (run / "ranks-test.parquet", hidden))
    assert (masked <= kept).all()
    assert (masked < kept).any()


def test_without_saving_no_ranks_of_an_earlier_result_stay(run):
    config = run_config(str(run), ["evaluation.save_ranks=false"])
    with world_of_one() as world:
        train(config, world)
        assert not list(run.glob("*ranks*"))
        evaluate(run_config(str(run), ["evaluation.save_ranks=true"]), world, "best")
        assert sorted(path.name for path in run.glob("*ranks*")) == [
            "evaluation-best-ranks-test.parquet",
            "evaluation-best-ranks-valid.parquet",
        ]
        evaluate(config, world, "best")
    assert not list(run.glob("*ranks*"))
    assert (run / "evaluation-best.json").exists(), "saving ranks is not one of the settings that a name states"


def test_ranks_that_cannot_be_written_end_a_training_in_one_line(folders, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(split_results, "write_ranks", full_disk)
    config = config_of(folders, tmp_path / "run", "sasrec", "training.max_epochs=1")
    with world_of_one() as world:
        said = r"ranks-valid\.parquet: could not be written \(No space left on device\); free space .*save_ranks=false"
        with pytest.raises(InputError, match=said):
            train(config, world)
        monkeypatch.undo()
        assert train(config, world) is not None  # there is space now: only the ranking is repeated
    assert (tmp_path / "run/metrics.json").exists()

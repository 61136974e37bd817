"""What a model computes before each epoch: by rank 0, received by all, and computed anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema import Config
from distributed.inference.scoring import Scorer
from distributed.inputs import Inputs, build_system, open_inputs
from distributed.sharding import ShardedSystem, shard
from distributed.training import trainer, training_loop
from distributed.training.epoch_work import StoredFeatures, begin_epoch
from distributed.watchdog import Watchdog
from distributed.world import World, world_of_one
from tests.distributed.runs import config_of
from tests.distributed.spawn import run_ranks


def buffers_after(folders: Path, world: World, epoch: int) -> dict[str, torch.Tensor]:
    config = config_of(folders, folders / "run", "missrec")
    inputs = open_inputs(config)
    recommender = shard(build_system(config, inputs), config, inputs.dataset.num_items, world).system.recommender
    torch.manual_seed(1000 + world.rank)  # the ranks' own random numbers must not matter
    begin_epoch(recommender, inputs, world, config.seed, epoch)
    return {name: recommender.get_buffer(name).clone() for name in recommender.epoch_buffers}


def test_buffers_depend_on_the_epoch_and_on_nothing_random_besides(folders: Path) -> None:
    with world_of_one() as world:
        first, again, later = (buffers_after(folders, world, epoch) for epoch in (0, 0, 1))
    assert first["interest_of"].max() > 0
    for name, value in first.items():
        assert torch.equal(again[name], value)
        assert not torch.equal(later[name], value)


def on_rank(world: World, folders: Path, path: Path) -> None:
    found = buffers_after(folders, world, 3)
    torch.save(found, path / f"{world.size}-{world.rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_has_the_buffers_of_rank_0(folders: Path, tmp_path: Path, world: int) -> None:
    with world_of_one() as one:
        on_rank(one, folders, tmp_path)
    run_ranks(world, on_rank, folders, tmp_path)
    expected = torch.load(tmp_path / "1-0.pt", weights_only=True)
    for rank in range(world):
        found = torch.load(tmp_path / f"{world}-{rank}.pt", weights_only=True)
        for name, value in expected.items():
            assert torch.equal(found[name], value), (rank, name)


def test_features_are_read_as_float32_blocks(folders: Path) -> None:
    config = config_of(folders, folders / "run", "missrec")
    inputs = open_inputs(config)
    stored = StoredFeatures(inputs, torch.device("cpu"))
    block = stored.rows("text", 3, 9)
    assert block.dtype == torch.float32
    assert torch.equal(block, torch.tensor(inputs.dataset.features("text")[3:9]).float())


def test_a_run_of_no_epochs_ranks_with_interests_too(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[int] = []
    final_metrics = trainer.final_metrics

    def noting(config: Config, inputs: Inputs, scorer: Scorer, sharded: ShardedSystem, *others: Any) -> dict[str, Any]:
        ranked.append(int(sharded.system.recommender.get_buffer("interest_of").max()))
        return final_metrics(config, inputs, scorer, sharded, *others)

    monkeypatch.setattr(trainer, "final_metrics", noting)
    with world_of_one() as world:
        trainer.train(config_of(folders, tmp_path / "run", "missrec", "training.max_epochs=0"), world)
    assert ranked[0] > 0


def test_the_watchdog_rests_during_the_work_before_each_epoch(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    @contextmanager
    def resting(_: Watchdog) -> Iterator[None]:
        seen.append("rest")
        yield
        seen.append("end")

    monkeypatch.setattr(Watchdog, "resting", resting)
    monkeypatch.setattr(training_loop, "begin_epoch", lambda *_: seen.append("work"))
    with world_of_one() as world:
        trainer.train(config_of(folders, tmp_path / "run", "missrec", "training.max_epochs=2"), world)
    assert seen == ["rest", "work", "end"] * 2

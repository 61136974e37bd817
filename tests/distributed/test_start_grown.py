"""A run on a grown dataset that starts from a run on the old one: rows of old items are loaded, new ones are fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import InputError
from data.dataset import Dataset
from distributed.inputs import open_inputs
from distributed.training.start import start
from distributed.training.trainer import check_trainable, train
from distributed.world import world_of_one
from jobs.prepare_data import prepare
from tests.distributed.runs import config_of
from tests.distributed.spawn import run_ranks
from tests.distributed.start_runs import (
    SHARDINGS,
    SHORT,
    TABLE,
    fresh_weights,
    own_values,
    same_bytes,
    system_for,
    weights_at,
)

OLD_ITEMS, NEW_ITEMS = 20, 13
BIAS = "recommender.output_bias"


def rows(first: int, num_items: int) -> pa.Table:
    users, times = np.repeat(np.arange(num_items), 6), np.tile(np.arange(6), num_items)
    items = first + (users + times) % num_items
    return pa.table(
        {"user": [f"u{user}" for user in users], "item": [f"i{item}" for item in items], "timestamp": times + first}
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `old` and `dataset`, which has grown from it, and runs on `old` for each sharding and system."""
    root = tmp_path_factory.mktemp("grown")
    for name, table in (("old", rows(0, OLD_ITEMS)), ("new", rows(OLD_ITEMS, NEW_ITEMS))):
        pq.write_table(table, root / f"{name}.parquet")
    prepare("table", str(root / "old"), str(root / "old.parquet"))
    prepare("table", str(root / "dataset"), str(root / "new.parquet"), append=str(root / "old"))
    assert Dataset.open(str(root / "dataset")).num_items == OLD_ITEMS + NEW_ITEMS
    with world_of_one() as world:
        for run, system, sharding in [
            *((name, "sasrec", name) for name in SHARDINGS),
            ("bert4rec", "bert4rec", "auto"),
        ]:
            own = (f"dataset={root}/old", f"table.sharding={sharding}", "seed=7")
            train(config_of(root, root / run, system, SHORT, *own), world)
    return root


def started(root: Path, run: Path, source: str, *more: str, system: str = "sasrec") -> Any:
    return config_of(root, run, system, SHORT, f"training.start_from={root}/{source}", *more)


@pytest.mark.long
@pytest.mark.parametrize("theirs", SHARDINGS)
@pytest.mark.parametrize("own", SHARDINGS)
def test_old_items_are_loaded_and_new_ones_are_fresh(root: Path, tmp_path: Path, theirs: str, own: str) -> None:
    config = started(root, tmp_path / "new", theirs, f"table.sharding={own}")
    with world_of_one() as world:
        inputs, sharded = system_for(config, world)
        plan = start(config, inputs, sharded, world)
        found = own_values(sharded)
    assert plan is not None
    best, fresh = weights_at(root / theirs), fresh_weights(config)
    assert not same_bytes(best[TABLE], fresh[TABLE][:OLD_ITEMS])
    for name, (_, value) in found.items():
        if name == TABLE:
            assert same_bytes(value[:OLD_ITEMS], best[name])
            assert same_bytes(value[OLD_ITEMS:], fresh[name][OLD_ITEMS:])
        else:
            assert same_bytes(value, best[name]), name
    assert f"loaded: {OLD_ITEMS} old items; {NEW_ITEMS} new items are fresh" in plan.text(by_module=True)


@pytest.mark.long
def test_weights_of_single_items_beside_the_table_grow_too(root: Path, tmp_path: Path) -> None:
    config = started(root, tmp_path / "new", "bert4rec", system="bert4rec")
    with world_of_one() as world:
        inputs, sharded = system_for(config, world)
        start(config, inputs, sharded, world)
        found = own_values(sharded)
    best, fresh = weights_at(root / "bert4rec"), fresh_weights(config)
    for name in (TABLE, BIAS):
        assert same_bytes(found[name][1][:OLD_ITEMS], best[name][:OLD_ITEMS])
        assert same_bytes(found[name][1][OLD_ITEMS:], fresh[name][OLD_ITEMS:])


def starting_on_ranks(world: Any, root: Path, run: Path, expected: Path) -> None:
    whole = np.load(expected)["table"]
    for own in SHARDINGS:
        for theirs in SHARDINGS:
            config = started(root, run, theirs, f"table.sharding={own}")
            inputs, sharded = system_for(config, world)
            start(config, inputs, sharded, world)
            first, value = own_values(sharded)[TABLE]
            assert same_bytes(value, whole[SHARDINGS.index(theirs)][first : first + len(value)]), (own, theirs)


@pytest.mark.slow
def test_ranks_that_have_old_rows_some_or_none(root: Path, tmp_path: Path) -> None:
    """Of three ranks with 11 rows each, the first has old items only, the second some, and the last none."""
    fresh = fresh_weights(started(root, tmp_path / "new", "row_wise"))[TABLE]
    tables = [np.concatenate([weights_at(root / how)[TABLE], fresh[OLD_ITEMS:]]) for how in SHARDINGS]
    np.savez(tmp_path / "table.npz", table=np.stack(tables))
    run_ranks(3, starting_on_ranks, root, tmp_path / "new", tmp_path / "table.npz")


@pytest.mark.long
def test_training_goes_on_from_there_but_not_on_an_unrelated_dataset(root: Path, tmp_path: Path) -> None:
    with world_of_one() as world:
        train(started(root, tmp_path / "new", "data_parallel", "training.max_epochs=1"), world)
    assert "old items" in (tmp_path / "new/start.txt").read_text()
    # The same rows without --append: nothing says that its first items are the old ones.
    pq.write_table(pa.concat_tables([rows(0, OLD_ITEMS), rows(OLD_ITEMS, NEW_ITEMS)]), tmp_path / "both.parquet")
    prepare("table", str(tmp_path / "both"), str(tmp_path / "both.parquet"))
    config = started(root, tmp_path / "other", "data_parallel", f"dataset={tmp_path}/both")
    with pytest.raises(InputError, match="was trained on another dataset"):
        check_trainable(config, open_inputs(config))

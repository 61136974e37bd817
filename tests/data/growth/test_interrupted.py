"""A growth that is killed leaves both datasets as they were, continues, and ends as an undisturbed one; Ray's too."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.dataset import Dataset, write_dataset
from data.prepare.engine.executor import SerialExecutor
from data.prepare.engine.workplace import Workplace
from data.prepare.growth.growth import Growth
from data.prepare.pipeline import RawOptions, raw_content
from data.writing import FeatureRows
from tests.data.engine.memory_source import MemorySource
from tests.data.engine.preparing import SIZES, DyingExecutor, source_of_random_rows
from tests.fingerprints import fingerprints

OPTIONS = RawOptions(hold_back=True)
HALVES = [
    replace(source_of_random_rows(), table=source_of_random_rows().table.slice(start, 1500)) for start in (0, 1500)
]


class DyingRows:
    """Features whose second block never comes: the process is killed while the dataset is written."""

    dim = 1
    dtype = np.dtype(np.float32)

    def blocks(self, block_rows: int) -> Iterator[np.ndarray]:
        yield np.ones((min(block_rows, 1), 1), np.float32)
        os.kill(os.getpid(), signal.SIGKILL)


def write(folder: Path, source: MemorySource, executor: Any, old: Path | None = None, *, dies: bool = False) -> None:
    place = Workplace(folder=folder.with_name("work"), executor=lambda _: nullcontext(executor), sizes=SIZES)
    growth = Growth(old=Dataset.open(str(old))) if old else None
    with raw_content(source, OPTIONS, {}, {}, place, growth=growth) as content:
        rows: dict[str, FeatureRows] = {"text": DyingRows()}
        write_dataset(str(folder), replace(content, features=rows) if dies else content, overwrite=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of the first half of the rows, and the one that has grown from it."""
    root = tmp_path_factory.mktemp("undisturbed")
    write(root / "old", HALVES[0], SerialExecutor())
    write(root / "grown", HALVES[1], SerialExecutor(), root / "old")
    assert (root / "old/held_back.parquet").exists()
    return root


def is_killed(folder: Path, executor: Any, old: Path, *, dies: bool) -> bool:
    process = multiprocessing.get_context("fork").Process(
        target=write, args=(folder, HALVES[1], executor, old), kwargs={"dies": dies}
    )
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.long
def test_killed_again_and_again(undisturbed: Path, tmp_path: Path) -> None:
    old, folder = undisturbed / "old", tmp_path / "grown"
    write(folder, HALVES[0], SerialExecutor())
    before = fingerprints(old), fingerprints(folder)
    for dies, left in [(False, 5)] * 3 + [(True, 1 << 30)]:
        assert is_killed(folder, DyingExecutor(left), old, dies=dies)
        assert (fingerprints(old), fingerprints(folder)) == before
    while is_killed(folder, DyingExecutor(40), old, dies=False):
        assert (fingerprints(old), fingerprints(folder)) == before
    assert fingerprints(folder) == fingerprints(undisturbed / "grown")
    assert fingerprints(old) == before[0]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_ray_gives_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    from configs.schema import ClusterConfig
    from data.prepare.engine.ray_stages import RayExecutor

    write(
        tmp_path / "grown", HALVES[1], RayExecutor(ClusterConfig(num_workers=2), tmp_path / "work"), undisturbed / "old"
    )
    assert fingerprints(tmp_path / "grown") == fingerprints(undisturbed / "grown")

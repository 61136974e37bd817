"""The inner loop of benchmarks/fused_scores.cu: its lists are those of plain loops, and it fits into registers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.cuda import nvrtc
from tests.kernels.cuda.emulator import Emulator, compiler
from tests.kernels.cuda.test_compile import needs_nvrtc

pytestmark = pytest.mark.long  # many cases of about half a second

SOURCE = Path(__file__).parents[3] / "benchmarks" / "fused_scores.cu"
ROWS, COLUMNS, CAPACITY = 128, 256, 40


SHARED = re.search(r"SHARED_BYTES = (\d+);", SOURCE.read_text())
assert SHARED is not None
SHARED_BYTES = int(SHARED[1])


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    if compiler is None:
        pytest.skip("g++ is not installed")
    return Emulator(tmp_path_factory.mktemp("fused"), SOURCE.parent)


@pytest.fixture
def fused(xp, request):
    """A function that launches the kernel on NumPy arrays, which it changes."""
    if xp is np:
        emulator = request.getfixturevalue("emulated")
        return lambda blocks, arguments: emulator.launch("fused_scores", "fused_scores", (blocks, 1, 1), 256, arguments)

    def launch(blocks, arguments):
        kernel = xp.RawModule(code=SOURCE.read_text(), options=("--std=c++17",)).get_function("fused_scores")
        kernel.max_dynamic_shared_size_bytes = SHARED_BYTES
        on_device = [xp.asarray(each) if isinstance(each, np.ndarray) else each for each in arguments]
        kernel((blocks,), (256,), tuple(on_device), shared_mem=SHARED_BYTES)
        for each, changed in zip(arguments, on_device, strict=True):
            if isinstance(each, np.ndarray):
                each[...] = changed.get()

    return launch


def launch(fused, units, threshold, tiles, blocks):
    n = len(units)
    found = {
        "count": np.zeros(n, dtype=np.int32),
        "ids": np.full((n, CAPACITY), -7, dtype=np.int32),
        "scores": np.full((n, CAPACITY), -7, dtype=np.float32),
    }
    repeat = np.zeros(len(tiles), dtype=np.uint8)
    sizes = np.int32(n), np.int32(units.shape[1])
    fused(
        blocks,
        (units, *sizes, tiles, np.int32(len(tiles)), threshold, *found.values(), np.int32(CAPACITY), repeat),
    )
    return found, repeat


@pytest.mark.parametrize("blocks", [1, 3])
def test_lists_are_those_of_plain_loops(fused, blocks):
    rng = np.random.default_rng(blocks)
    n, width = 300, 72  # neither a multiple of the tile nor of the depth of a step
    units = rng.integers(-4, 5, (n, width)).astype(np.float16)
    scores = units.astype(np.float32) @ units.astype(np.float32).T
    others = np.where(np.eye(n, dtype=bool), -np.inf, scores)
    threshold = np.sort(others, axis=1)[:, -8].astype(np.float32)
    threshold[::9] = np.inf
    tiles = np.array([(r, c) for r in range(0, n, ROWS) for c in range(0, n, COLUMNS) if c + COLUMNS > r], np.int32)
    found, repeat = launch(fused, units, threshold, tiles, blocks)
    assert not repeat.any()
    for i in range(n):
        held = found["count"][i]
        assert held <= CAPACITY
        listed = sorted(zip(found["ids"][i, :held].tolist(), found["scores"][i, :held].tolist(), strict=True))
        assert listed == [(j, others[i, j]) for j in np.flatnonzero(others[i] >= threshold[i]).tolist()]
        assert (found["ids"][i, held:] == -7).all()


def test_rows_beyond_the_last_are_on_no_list(fused):
    units = np.random.default_rng(0).integers(-4, 5, (20, 8)).astype(np.float16)
    threshold = np.full(20, np.inf, dtype=np.float32)
    threshold[3] = -np.inf
    found, _ = launch(fused, units, threshold, np.zeros((1, 2), dtype=np.int32), 1)
    assert found["count"].tolist() == [0, 0, 0, 19, *[0] * 16]
    assert sorted(found["ids"][3, :19].tolist()) == [*range(3), *range(4, 20)]


def test_a_tile_with_too_many_survivors_changes_no_list(fused):
    units = np.ones((40, 8), dtype=np.float16)
    tiles = np.zeros((1, 2), dtype=np.int32)
    for threshold, count in [(9.0, 0), (8.0, 39)]:  # all scores are 8: 780 pairs fit
        found, repeat = launch(fused, units, np.full(40, threshold, dtype=np.float32), tiles, 1)
        assert repeat.tolist() == [0]
        assert (found["count"] == count).all()
    found, repeat = launch(fused, np.ones((50, 8), dtype=np.float16), np.full(50, 8.0, dtype=np.float32), tiles, 1)
    assert repeat.tolist() == [1]  # 1,225 pairs do not
    assert (found["count"] == 0).all()


@needs_nvrtc
@pytest.mark.parametrize(("architecture", "memory"), [("sm_80", 163), ("sm_90", 227), ("sm_100", 227)])
def test_accumulators_stay_in_registers(architecture, memory):
    source = SOURCE.read_text()
    _, usage, log = nvrtc.compiled(source, SOURCE.name, architecture, ("--std=c++17", "-ftz=true"))
    used = usage["fused_scores"]
    assert "warning" not in log
    assert used[:3] == (0, 0, 0)
    assert used.registers * 256 <= 65536  # a block of 256 threads
    assert memory * 1024 >= SHARED_BYTES
    ptx = nvrtc.assembly(source, SOURCE.name, ("--std=c++17", "-ftz=true"))
    assert ptx.count("mma.sync") == 4 * 32  # of a step: 4 parts of the depth, 4 x 8 products

"""What is chosen by the device of a rank, and how a rank uses its GPU, with CUDA's functions replaced."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contracts.batch import Batch, Step
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints
from distributed.inference.scoring import held_bytes
from distributed.torchrec import parallel
from distributed.training.device_step import DeviceStep
from distributed.training.loader import num_loader_workers
from distributed.training.steps_in_turn import CopiedAhead
from distributed.world import World, world_of_one
from tests.distributed.test_sharding import build, config_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


def test_loader_processes_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert num_loader_workers("auto", CPU) == 0
    assert num_loader_workers("auto", CUDA) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert num_loader_workers("auto", CUDA) == 2
    assert num_loader_workers(0, CUDA) == 0
    assert num_loader_workers(7, CPU) == 7


def test_held_item_vectors_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(total_memory=80 * 2**30))
    assert held_bytes("auto", CPU) == 2**30
    assert held_bytes("auto", CUDA) == 20 * 2**30
    assert held_bytes(0.5, CUDA) == 2**29


def test_a_rank_has_its_share_of_its_own_nodes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node has a part of the ranks, and the planner must not divide its memory by all of them."""
    given = []

    def topology(**options: Any) -> Any:
        given.append(options)
        return planned(**options)

    planned = parallel.Topology
    monkeypatch.setattr(parallel, "Topology", topology)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**23}[name])
    with world_of_one() as world:
        for ranks_of_node in ("1", "4"):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks_of_node)
            build(config_of("sasrec", "row_wise", "sgd"), world)
    assert [(options["local_world_size"], options["ddr_cap"]) for options in given] == [(1, 2**35), (4, 2**33)]


def test_checkpoints_are_written_by_a_thread_that_uses_the_ranks_own_gpu(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    monkeypatch.setattr("torch.cuda.set_device", used.append)
    with world_of_one() as world:
        sharded, _, _ = build(config_of("sasrec", "data_parallel", "adam"), world)
        for device, expected in ((CPU, []), (CUDA, [CUDA])):
            checkpoints = Checkpoints(str(tmp_path / device.type), World(0, 1, device))
            checkpoints.start(sharded, Progress(step=1, best_step=1))
            checkpoints.finish()
            assert used == expected


class Streams:
    """Stands for `torch.cuda`: notes what is queued in which stream."""

    class Stream:
        def __init__(self, device: torch.device | None = None) -> None:
            self.device, self.name = device, "copies" if device else "compute"

        def wait_stream(self, other: Streams.Stream) -> None:
            LOG.append(f"{self.name} waits for {other.name}")

    def __init__(self) -> None:
        self.compute = self.current = self.Stream()

    def current_stream(self, _: torch.device) -> Streams.Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Streams.Stream) -> Any:
        before, self.current = self.current, stream
        yield
        self.current = before


LOG: list[str] = []
STREAMS = Streams()


class Noted(torch.Tensor):
    """A tensor that notes where it is copied and which streams use it."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Noted:
        assert device == CUDA
        assert self.is_pinned_here, "copied from memory that is not pinned"
        assert non_blocking
        LOG.append(f"copy {int(self[0])} in {STREAMS.current.name}")
        return self

    def pin_memory(self) -> Noted:
        self.is_pinned_here = True
        return self

    def record_stream(self, stream: Any) -> None:
        LOG.append(f"record {int(self[0])} in {stream.name}")


def step_number(number: int) -> DeviceStep:
    noted = torch.tensor([number]).as_subclass(Noted)
    noted.is_pinned_here = False
    step = Step(Batch(**dict.fromkeys(("users", "history", "lengths", "num_states", "states", "targets", "positions"),
                                      noted), groups=(), num_global_targets=1))  # fmt: skip
    return DeviceStep(feature=None, plan=EMPTY_PLAN, batch=step.pin_memory().batch, number=number)


EMPTY_PLAN: Any = SimpleNamespace(union_ids=SimpleNamespace(device=CUDA), map=lambda _: None)


def test_the_next_step_is_copied_while_a_step_computes() -> None:
    LOG.clear()
    steps, source = CopiedAhead(CUDA, STREAMS), iter(map(step_number, range(3)))
    found = []
    for _ in range(3):
        found.append(steps.next(source).number)
        LOG.append(f"compute {found[-1]}")
    with pytest.raises(StopIteration):
        steps.next(source)
    assert found == [0, 1, 2]
    assert [line for n, line in enumerate(LOG) if LOG[n - 1 : n] != [line]] == [
        "copy 0 in copies", "compute waits for copies", "record 0 in compute", "copy 1 in copies", "compute 0",
        "compute waits for copies", "record 1 in compute", "copy 2 in copies", "compute 1",
        "compute waits for copies", "record 2 in compute", "compute 2",
    ]  # fmt: skip

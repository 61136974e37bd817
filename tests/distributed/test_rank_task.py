"""Which errors of a rank justify another attempt, and what a rank reports of all other errors."""

import errno
import os
import pickle

import pytest
import torch
import torch.distributed as dist

from contracts.errors import InputError
from distributed.rank_task import RankError, is_of_machines
from tests.distributed.spawn import run_ranks


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (dist.DistNetworkError("timed out"), True),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), True),
        (InputError("training.max_skipped_steps=10: ..."), False),
        (FloatingPointError("scores are not finite"), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("not yours"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (MemoryError(), False),
        (RuntimeError("of our own code"), False),
        (AssertionError(), False),
    ],
    ids=repr,
)
def test_errors_of_machines_are_told_from_errors_of_the_program(error, passes):
    assert is_of_machines(caught(lambda: raising(error))) == passes


def test_an_error_of_torch_outside_collectives_is_the_programs():
    assert not is_of_machines(caught(lambda: torch.ones(2) @ torch.ones(3)))


def _lose_a_peer(world):
    if world.is_first:
        os._exit(0)
    assert is_of_machines(caught(world.barrier))
    layer = torch.nn.Linear(2, 2)
    assert is_of_machines(caught(lambda: torch.nn.parallel.DistributedDataParallel(layer)))
    os._exit(0)


def test_a_collective_whose_peer_is_gone_may_succeed_at_the_next_attempt():
    run_ranks(2, _lose_a_peer)


@pytest.mark.parametrize(
    ("error", "message", "refused"),
    [
        (InputError("row 3: bad"), "row 3: bad", True),
        (FloatingPointError("diverged"), "diverged", True),
        (MemoryError(), "the memory of a rank's machine is too small (); use a larger machine", True),
        (ValueError("two\nlines"), "ValueError: two lines", False),
        (ValueError("x" * 9999), "ValueError: " + "x" * 488, False),
    ],
)
def test_what_a_rank_reports_is_one_line_and_crosses_processes(error, message, refused):
    reported = pickle.loads(pickle.dumps(RankError.of(caught(lambda: raising(error)), 5)))  # noqa: S301
    assert (str(reported), reported.refused) == (message, refused)
    assert reported.report.startswith("rank 5:\nTraceback")
    assert "in raising" in reported.report

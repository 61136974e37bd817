"""Runs a task on one rank, and decides which errors end the task and which justify another attempt.

An error of the program or of its input would occur at every attempt, so it ends the task. An error of the machines
may not occur again, so Ray starts the ranks again. Such errors are a lost peer or connection, and a failure of a
device or a file system.
"""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist

from configs.schema import Config
from contracts.errors import InputError
from distributed.output import keep_own_warnings
from distributed.telemetry import Track
from distributed.world import World

Task = Literal["train", "evaluate", "recommend"]
_LONGEST = 500  # characters of an error's line
_PACKAGES = os.path.dirname(os.path.dirname(torch.__file__))
# Errors of collectives are raised by code in these folders. Gloo raises a plain RuntimeError.
_COLLECTIVES = tuple(
    os.path.join(_PACKAGES, *parts) + os.sep
    for parts in (("torch", "distributed"), ("torch", "autograd"), ("torch", "nn", "parallel"), ("torchrec",))
)
# An OSError of one of these types is an error of the program or its input, not of the storage.
_OWN_FAULT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


class RankError(Exception):
    """An error of a rank that would occur again at another attempt.

    Attributes:
        message: the error in one line.
        report: the traceback, with the rank.
        refused: whether the input caused the error. The message then suffices, and no traceback is shown.
    """

    def __init__(self, message: str, report: str, refused: bool) -> None:
        super().__init__(message, report, refused)  # all arguments, so that the error can be pickled
        self.message, self.report, self.refused = message, report, refused

    def __str__(self) -> str:
        return self.message

    @classmethod
    def of(cls, error: BaseException, rank: int) -> RankError:
        """Return the report of an error that rank `rank` caught."""
        report = f"rank {rank}:\n" + "".join(traceback.format_exception(error))
        if isinstance(error, InputError | FloatingPointError):
            return cls(str(error), report, True)
        if isinstance(error, MemoryError):
            return cls(f"the memory of a rank's machine is too small ({error}); use a larger machine", report, True)
        return cls(one_line(error), report, False)


def one_line(error: BaseException) -> str:
    """Return the type and message of an error in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]


def run_task(task: Task, config: Config, world: World, track: Track, **arguments: Any) -> None:
    """Train, evaluate or recommend. Every rank calls this.

    Args:
        task: which of the three.
        config: the run's settings.
        world: this rank's place.
        track: shows progress.
        arguments: further arguments of the task's function.

    Raises:
        RankError: an error that would occur again at every attempt.
        Exception: an error of the machines (`is_of_machines`); another attempt may succeed.
    """
    quiet_libraries()
    from distributed.inference.evaluate import evaluate
    from distributed.inference.recommend import recommend
    from distributed.training import trainer

    tasks: dict[Task, Callable[..., Any]] = {
        "train": trainer.train,
        "evaluate": evaluate,
        "recommend": recommend,
    }
    try:
        tasks[task](config, world, track=track, **arguments)
    except Exception as error:
        if world.size > 1 and is_of_machines(error):
            raise
        raise RankError.of(error, world.rank) from None


def is_of_machines(error: Exception) -> bool:
    """Return whether a peer, a device or a file system failed, so that another attempt may succeed."""
    if isinstance(error, InputError | torch.OutOfMemoryError):
        return False
    if isinstance(error, dist.DistError | torch.AcceleratorError):
        return True
    if isinstance(error, OSError):
        return not isinstance(error, _OWN_FAULT)
    if type(error) is not RuntimeError or error.__traceback__ is None:
        return False
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return innermost.startswith(_COLLECTIVES)


def quiet_libraries() -> None:
    """Hide what FBGEMM, TorchRec and torch log while they are loaded and while they plan; errors are still shown.

    The sharding plan itself is printed and saved by `training/trainer.py`.
    """
    for name in (None, "torch"):  # torch's own loggers do not inherit from the root
        logging.getLogger(name).setLevel(logging.ERROR)
    keep_own_warnings()
    # This warning is about a class of TorchRec, but Python attributes it to lines of this project.
    warnings.filterwarnings("ignore", message=".*ShardedTensor")
    for category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|torchrec|fbgemm_gpu)\b")

"""What every rank runs, in whatever process it is; and what it reports when the task fails.

An error of the program or of its input comes back at every attempt, so it ends the task. An error of the machines (a
peer or its connection is gone, a device or a file system fails) may not come back, so Ray starts the ranks again.
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
_LONGEST = 500
_PACKAGES = os.path.dirname(os.path.dirname(torch.__file__))
# Errors of collectives are raised from these, by gloo as a plain RuntimeError.
_COLLECTIVES = tuple(
    os.path.join(_PACKAGES, *parts) + os.sep
    for parts in (("torch", "distributed"), ("torch", "autograd"), ("torch", "nn", "parallel"), ("torchrec",))
)
# What an OSError is when the program, not the storage, is wrong.
_OWN_FAULT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


class RankError(Exception):
    """A rank met an error that another attempt would meet again.

    Attributes:
        message: the error in one line.
        report: the traceback, with the rank.
        refused: whether the input is at fault, and the message says all there is to say.
    """

    def __init__(self, message: str, report: str, refused: bool) -> None:
        super().__init__(message, report, refused)  # all arguments, so that it is the same in another process
        self.message, self.report, self.refused = message, report, refused

    def __str__(self) -> str:
        return self.message

    @classmethod
    def of(cls, error: BaseException, rank: int) -> RankError:
        """What rank `rank` reports of an error that it caught."""
        report = f"rank {rank}:\n" + "".join(traceback.format_exception(error))
        if isinstance(error, InputError | FloatingPointError):
            return cls(str(error), report, True)
        if isinstance(error, MemoryError):
            return cls(f"the memory of a rank's machine is too small ({error}); use a larger machine", report, True)
        return cls(one_line(error), report, False)


def one_line(error: BaseException) -> str:
    """Type and message of an error, in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]


def run_task(task: Task, config: Config, world: World, track: Track, **arguments: Any) -> None:
    """Train, evaluate or recommend; called by every rank.

    Raises:
        RankError: the task cannot succeed, however often it is tried.
        Exception: any other error, of machines.
    """
    quiet_libraries()
    from distributed.inference import encoding
    from distributed.training import trainer

    tasks: dict[Task, Callable[..., Any]] = {
        "train": trainer.train,
        "evaluate": encoding.evaluate,
        "recommend": encoding.recommend,
    }
    try:
        tasks[task](config, world, track=track, **arguments)
    except Exception as error:
        if world.size > 1 and is_of_machines(error):
            raise
        raise RankError.of(error, world.rank) from None


def is_of_machines(error: Exception) -> bool:
    """Whether a peer, a device or a file system failed, so that another attempt may succeed."""
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
    """Keep what FBGEMM, TorchRec and torch log while loading and planning out of the driver's output.

    The plan itself is printed and saved; errors still come through.
    """
    for name in (None, "torch"):  # torch's own loggers do not inherit from the root
        logging.getLogger(name).setLevel(logging.ERROR)
    keep_own_warnings()
    warnings.filterwarnings("ignore", message=".*ShardedTensor")  # raised at our lines, about TorchRec's class
    for category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(torch|torchrec|fbgemm_gpu)\b")

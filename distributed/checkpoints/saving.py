"""Saves, loads and deletes the checkpoints of a run.

Ranks write a checkpoint to a temporary folder, which is then renamed. `contents.py` writes and reads the files with
the tensors; none is a pickle, and any number of ranks can read them. `progress.json` is written last and has the
SHA-256 of each file, so a folder without it is unfinished.

    RUN/checkpoints/step-00000670/shard-*.safetensors, progress.json
    RUN/checkpoints/index.json      {"latest": step, "best": step}
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from contracts.errors import InputError
from distributed.checkpoints.contents import NO_LOSSES, Losses, fill, find_damage, first_line, state_of, write_tensors
from distributed.checkpoints.index import (
    DamagedCheckpoint,
    find_checkpoint,
    read_progress,
    step_folder,
    steps_in,
    steps_of,
)
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.snapshot import snapshot
from distributed.output import say
from distributed.sharding import ShardedSystem
from distributed.world import World
from storage.durable_files import replace_folder, restore_replaced, write_text
from storage.plain_json import json_text

SMALL = ("config.yaml", "plan.txt", "start.txt", "metrics.jsonl")  # uploaded with each checkpoint of a run at a URI


@dataclass
class _Pending:
    """A checkpoint that is being written.

    Attributes:
        aside: the temporary folder.
        progress: the state of the run at the checkpoint.
        written: becomes the SHA-256 of each of this rank's files, by name, when they are written.
    """

    aside: Path
    progress: Progress
    written: Future[dict[str, str]]


class Checkpoints:
    """The checkpoints of one run. Every rank calls every method.

    Attributes:
        storage: the run's folder or URI.
        run: the run's local folder.
        folder: the local folder of checkpoints.
    """

    def __init__(self, run: str, world: World, keep: int = 2) -> None:
        self.storage = RunStorage(run)
        self.run = str(self.storage.local)
        self.folder = self.storage.local / "checkpoints"
        self.world = world
        self.keep = keep
        # If the run is at a URI, each node has its own local folder, and one rank of the node manages it.
        self._keeps_folder = world.is_first_of_node if self.storage.is_remote else world.is_first
        self._pending: _Pending | None = None
        # A thread of its own would use GPU 0, whichever GPU this rank has.
        set_device = partial(torch.cuda.set_device, world.device) if world.device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=set_device)
        self._group: dist.ProcessGroup | None = None

    def save(self, sharded: ShardedSystem, progress: Progress, losses: Losses = NO_LOSSES) -> None:
        """Write the state after `progress.step`, then delete the checkpoints that are no longer needed.

        The latest `keep` checkpoints stay. So does the checkpoint that each of them records as the best.

        Args:
            sharded: the system and its optimisers.
            progress: the state of the run.
            losses: this rank's sums of losses in the current epoch.

        Raises:
            InputError: the files could not be written (disk full, quota, permissions). Earlier checkpoints stay.
        """
        self.finish()
        with self._refusing(progress.step):
            aside = self._aside(progress)
        written: Future[dict[str, str]] = Future()
        try:
            written.set_result(write_tensors(aside, state_of(sharded, losses, self.world.rank), self.world, None))
        except (OSError, CheckpointException) as error:
            written.set_exception(error)
        self._pending = _Pending(aside, replace(progress), written)
        self.finish()

    def start(self, sharded: ShardedSystem, progress: Progress, losses: Losses = NO_LOSSES) -> None:
        """Copy the state to the host and begin to write the copy in a thread; `finish` publishes the checkpoint.

        Memory on the host: this rank's part of the table, all dense parameters, and the optimiser states of both.
        """
        self.finish()
        if self._group is None and self.world.size > 1:
            self._group = dist.new_group(backend="gloo")
        with self._refusing(progress.step):
            aside = self._aside(progress)
        state = snapshot(state_of(sharded, losses, self.world.rank))
        written = self._thread.submit(write_tensors, aside, state, self.world, self._group)
        self._pending = _Pending(aside, replace(progress), written)

    @property
    def is_pending(self) -> bool:
        """Whether a checkpoint was started and not finished. It is the same on all ranks."""
        return self._pending is not None

    @property
    def is_writing(self) -> bool:
        """Whether this rank is still writing its files."""
        return self._pending is not None and not self._pending.written.done()

    def finish(self) -> None:
        """Wait until all ranks have written a started checkpoint, then publish it. Raises the errors of `save`."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        progress, final = pending.progress, step_folder(self.folder, pending.progress.step)
        with self._refusing(progress.step, pending.aside):
            own = pending.written.result()
            progress.world = self.world.size
            progress.files = {name: digest for part in self.world.gather(own) for name, digest in part.items()}
            if self._keeps_folder:
                write_text(pending.aside / "progress.json", json_text(asdict(progress), indent=1))
                # A run that stopped after the last step of an epoch saves that step a second time when it resumes.
                replace_folder(pending.aside, final)
            self._publish(final, list(own), progress)
            if self._keeps_folder:
                self._prune(progress)
        self.world.barrier()

    @contextlib.contextmanager
    def _refusing(self, step: int, aside: Path | None = None) -> Iterator[None]:
        """Within this context, turn a failed write into one `InputError` and delete the unfinished folder."""
        try:
            yield
        except (OSError, CheckpointException) as error:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)
            raise InputError(
                f"checkpoint {step_folder(self.folder, step)}: could not be written ({first_line(error)}); earlier "
                "checkpoints are unchanged; free space or correct the permissions, then repeat the command"
            ) from None

    def _aside(self, progress: Progress) -> Path:
        """Make a temporary folder, the same on all ranks, and delete unfinished folders of earlier attempts."""
        name = self.world.gather(f".step-{progress.step:08d}.{time.time_ns()}.unfinished")[0]
        if self._keeps_folder:
            for left in self.folder.glob(".step-*.unfinished"):
                shutil.rmtree(left, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        self.world.barrier()
        return self.folder / name

    def load(
        self, which: str, sharded: ShardedSystem, fingerprints: Mapping[str, str], *, weights_only: bool = False
    ) -> tuple[Progress, Losses]:
        """Fill `sharded` in place from a checkpoint.

        Args:
            which: "latest", "best" or a step.
            sharded: the system to fill.
            fingerprints: the fingerprints of the opened dataset and graph. The checkpoint must record the same.
            weights_only: do not load the states of the optimisers.

        Returns:
            The run's progress at the checkpoint, and this rank's sums of losses in that epoch. Summed over ranks,
            these losses do not depend on how many ranks wrote or read the checkpoint.

        Raises:
            InputError: the checkpoint does not exist, is damaged, is of other data, or does not fit the model.
        """
        self.storage.pull(which)
        self.world.barrier()
        path, progress = find_checkpoint(self.run, which, fingerprints)
        damage = find_damage(path, progress, self.world)
        if damage:
            raise InputError(f"checkpoint {damage}; use another --checkpoint, or restore the file from a copy")
        return progress, fill(sharded, path, progress, self.world, weights_only=weights_only)

    def resume(self, sharded: ShardedSystem, fingerprints: Mapping[str, str]) -> tuple[Progress, Losses]:
        """Fill `sharded` in place from the latest checkpoint that is not damaged; see `load`.

        Raises:
            InputError: every checkpoint is damaged, or the best one so far is.
        """
        damaged: list[str] = []
        for step in reversed(self._steps()):
            self._bring(step)
            path = step_folder(self.folder, step)
            try:
                path, progress = find_checkpoint(self.run, str(step), fingerprints)
                damage = find_damage(path, progress, self.world)
            except InputError as error:
                if not isinstance(error, DamagedCheckpoint):
                    raise
                damage = str(error)
            if damage:
                damaged.append(damage)
                if self.world.is_first:
                    say(f"warning: checkpoint {damage}; continuing from the checkpoint before it")
                continue
            self._check_best(progress)
            is_untrained = not progress.step  # so optimisers have no states
            return progress, fill(sharded, path, progress, self.world, weights_only=is_untrained)
        raise InputError(
            f"run {self.run}: has no undamaged checkpoint ({'; '.join(damaged) or 'none exists'}); restore one "
            f"from a copy, or delete {self.folder} to begin again"
        )

    def bring(self) -> None:
        """Copy the small files and the latest and best checkpoint of a run at a URI to this node.

        For any run this also restores a checkpoint that an interrupted `finish` had renamed to replace it.
        """
        if self._keeps_folder:
            restore_replaced(self.folder)
        self.world.barrier()
        self.storage.pull()
        self.world.barrier()

    def _steps(self) -> list[int]:
        """Return the steps of all checkpoints, ascending, the same on all ranks."""
        if not self.storage.is_remote:
            return self.world.gather(steps_in(self.folder))[0]
        # A checkpoint without progress.json at the URI was not uploaded completely: only its own nodes have all of it.
        return self.world.gather(steps_of(self.storage.folders_there("checkpoints", "progress.json")))[0]

    def _bring(self, step: int) -> None:
        self.storage.pull(str(step))
        self.world.barrier()

    def exists(self) -> bool:
        """Return whether the run has an index of checkpoints, that is, whether it can be resumed."""
        return (self.folder / "index.json").exists()

    def _check_best(self, progress: Progress) -> None:
        """Raise if the best checkpoint so far is damaged, because the run needs it at its end."""
        if progress.best_step in (None, progress.step):
            return
        self._bring(progress.best_step)
        path = step_folder(self.folder, progress.best_step)
        try:
            damage = find_damage(path, read_progress(path, progress.best_step), self.world)
        except DamagedCheckpoint as error:
            damage = str(error)
        if damage:
            raise InputError(
                f"checkpoint {damage}; it is the best so far, and the run needs it at its end; restore the file "
                f"from a copy, or delete {self.folder} to begin again"
            )

    def _publish(self, path: Path, own: list[str], progress: Progress) -> None:
        """Publish a checkpoint: upload the files of every rank first, then progress.json and the index."""
        self.world.barrier()  # until every node has renamed its temporary folder
        self.storage.push([f"checkpoints/{path.name}/{name}" for name in own])
        self.world.barrier()
        if self._keeps_folder:
            index = {"latest": progress.step, "best": progress.best_step}
            write_text(self.folder / "index.json", json_text(index, indent=1))
        if self.world.is_first:
            small = [name for name in SMALL if (self.storage.local / name).exists()]
            self.storage.push(small, [f"checkpoints/{path.name}/progress.json", "checkpoints/index.json"])

    def _prune(self, progress: Progress) -> None:
        """Delete the checkpoints that none of the latest `keep` needs.

        If later checkpoints are damaged, the run resumes from an earlier one, which needs the checkpoint that was the
        best at its time.
        """
        best = {progress.best_step}
        for step in steps_in(self.folder)[-self.keep :]:
            with contextlib.suppress(DamagedCheckpoint):
                best.add(read_progress(step_folder(self.folder, step), step).best_step)
        for step in steps_in(self.folder)[: -self.keep]:
            if step not in best:
                shutil.rmtree(step_folder(self.folder, step))
        if self.world.is_first:  # the URI may have checkpoints that this node has not, if the node joined later
            for step in steps_of(self.storage.folders_there("checkpoints"))[: -self.keep]:
                if step not in best:
                    self.storage.remove(f"checkpoints/{step_folder(self.folder, step).name}")

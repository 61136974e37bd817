"""Checkpoints: written aside and renamed, checksummed, readable by any number of ranks, without pickle.

`tensors` says what is in the files and reads and writes them. `progress.json` is written last, with the SHA-256 of
each file: a folder without it is unfinished.

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
from pathlib import Path

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from contracts.errors import InputError
from distributed.checkpoints.index import (
    DamagedCheckpoint,
    Progress,
    find_checkpoint,
    read_progress,
    step_folder,
    steps_in,
    steps_of,
)
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.snapshot import snapshot
from distributed.checkpoints.tensors import NO_LOSSES, Losses, fill, find_damage, first_line, state_of, write_tensors
from distributed.output import say
from distributed.sharding import ShardedSystem
from distributed.world import World
from storage.durable_files import replace_folder, restore_replaced, write_text
from storage.plain_json import json_text

_SMALL = ("config.yaml", "plan.txt", "metrics.jsonl")  # that go with a checkpoint of a run at a URI


@dataclass
class _Pending:
    """A checkpoint that is being written: where, what it says, and the digests of this rank's files to come."""

    aside: Path
    progress: Progress
    written: Future[dict[str, str]]


class Checkpoints:
    """The checkpoints of one run; every method is called by every rank."""

    def __init__(self, run: str, world: World, keep: int = 2) -> None:
        self.storage = RunStorage(run)
        self.run = str(self.storage.local)
        self.folder = self.storage.local / "checkpoints"
        self.world = world
        self.keep = keep
        # Where the run is a URI each node has a folder of its own.
        self._keeps_folder = world.is_first_of_node if self.storage.is_remote else world.is_first
        self._pending: _Pending | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._group: dist.ProcessGroup | None = None

    def save(self, sharded: ShardedSystem, progress: Progress, losses: Losses = NO_LOSSES) -> None:
        """Write the state after `progress.step`; then drop all but the latest `keep` and the best each of them knew.

        Args:
            losses: this rank's, of the epoch under way.

        Raises:
            InputError: the files could not be written (disk full, quota, permissions); what there was is as before.
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
        """Begin to `save` a copy of the state beside training, in a thread; `finish` makes it count.

        Memory: the copy on the host, this rank's part of the table and all dense parameters with their optimisers'
        states.
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
        """Whether a checkpoint was started and not finished; the same on all ranks."""
        return self._pending is not None

    @property
    def is_writing(self) -> bool:
        """Whether this rank is still writing."""
        return self._pending is not None and not self._pending.written.done()

    def finish(self) -> None:
        """Wait until a started checkpoint is written by all ranks, and make it count. See `save` for what it raises."""
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
                # A run that stopped after the last step of an epoch saves that step again when it goes on.
                replace_folder(pending.aside, final)
            self._publish(final, list(own), progress)
            if self._keeps_folder:
                self._prune(progress)
        self.world.barrier()

    @contextlib.contextmanager
    def _refusing(self, step: int, aside: Path | None = None) -> Iterator[None]:
        """One clear error for what the system refuses within; the unfinished folder goes."""
        try:
            yield
        except (OSError, CheckpointException) as error:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)
            raise InputError(
                f"checkpoint {step_folder(self.folder, step)}: could not be written ({first_line(error)}); earlier "
                "checkpoints are whole: make room or mend the permissions, and repeat the command"
            ) from None

    def _aside(self, progress: Progress) -> Path:
        """A new folder to write to, the same on all ranks; what earlier sittings left unfinished goes."""
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
        """Fill `sharded` from a checkpoint in place ("latest", "best" or a step).

        Args:
            fingerprints: of the dataset and graph at hand; it must have been trained on the same.
            weights_only: leave the optimisers as they are.

        Returns:
            Where the run stood; and this rank's losses of the epoch that was under way (their sums over all ranks are
            the same, however many wrote it).

        Raises:
            InputError: no such checkpoint, a damaged one, one of other data, or one that does not fit the model.
        """
        self.storage.pull(which)
        self.world.barrier()
        path, progress = find_checkpoint(self.run, which, fingerprints)
        damage = find_damage(path, progress, self.world)
        if damage:
            raise InputError(f"checkpoint {damage}; use another --checkpoint, or restore the file from a copy")
        return progress, fill(sharded, path, progress, self.world, weights_only=weights_only)

    def resume(self, sharded: ShardedSystem, fingerprints: Mapping[str, str]) -> tuple[Progress, Losses]:
        """Fill `sharded` from the latest checkpoint that is whole; see `load`.

        Raises:
            InputError: there are checkpoints and none is whole, or the best one so far is not.
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
                    say(f"warning: checkpoint {damage}; going on from the one before")
                continue
            self._check_best(progress)
            return progress, fill(sharded, path, progress, self.world)
        raise InputError(
            f"run {self.run}: no checkpoint is whole ({'; '.join(damaged) or 'none is there'}); restore one from a "
            f"copy, or delete {self.folder} to begin again"
        )

    def bring(self) -> None:
        """Have here what the run's URI holds, if it is one: small files, and the latest and the best checkpoint.

        Also brings back a checkpoint that an interrupted `finish` had moved out of the way of its successor.
        """
        if self._keeps_folder:
            restore_replaced(self.folder)
        self.world.barrier()
        self.storage.pull()
        self.world.barrier()

    def _steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending, the same on all ranks."""
        if not self.storage.is_remote:
            return self.world.gather(steps_in(self.folder))[0]
        # One whose upload was broken off has no progress.json; a node that wrote it may still have it, others do not.
        return self.world.gather(steps_of(self.storage.folders_there("checkpoints", "progress.json")))[0]

    def _bring(self, step: int) -> None:
        self.storage.pull(str(step))
        self.world.barrier()

    def exists(self) -> bool:
        """Whether there is anything to resume from."""
        return (self.folder / "index.json").exists()

    def _check_best(self, progress: Progress) -> None:
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
                f"checkpoint {damage}, and it is the best so far, which the run needs at its end; restore the file "
                f"from a copy, or delete {self.folder} to begin again"
            )

    def _publish(self, path: Path, own: list[str], progress: Progress) -> None:
        """Make a checkpoint count: its own files of every rank first, progress.json and the index after them."""
        self.world.barrier()  # every node's folder has its name
        self.storage.push([f"checkpoints/{path.name}/{name}" for name in own])
        self.world.barrier()
        if self._keeps_folder:
            index = {"latest": progress.step, "best": progress.best_step}
            write_text(self.folder / "index.json", json_text(index, indent=1))
        if self.world.is_first:
            small = [name for name in _SMALL if (self.storage.local / name).exists()]
            self.storage.push(small, [f"checkpoints/{path.name}/progress.json", "checkpoints/index.json"])

    def _prune(self, progress: Progress) -> None:
        """Drop what none of the latest `keep` needs: each needs the best of its time, should the later ones be lost."""
        best = {progress.best_step}
        for step in steps_in(self.folder)[-self.keep :]:
            with contextlib.suppress(DamagedCheckpoint):
                best.add(read_progress(step_folder(self.folder, step), step).best_step)
        for step in steps_in(self.folder)[: -self.keep]:
            if step not in best:
                shutil.rmtree(step_folder(self.folder, step))
        if self.world.is_first:  # a node that came later does not have all that the URI has
            for step in steps_of(self.storage.folders_there("checkpoints"))[: -self.keep]:
                if step not in best:
                    self.storage.remove(f"checkpoints/{step_folder(self.folder, step).name}")

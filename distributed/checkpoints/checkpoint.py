"""Checkpoints: written aside and renamed, checksummed, readable by any number of ranks, without pickle.

Tensors go through torch.distributed.checkpoint into one safetensors file per rank; a row-wise table
is saved as the row ranges each rank holds and read back as the ranges each rank needs, so W ranks
save and any W' ranks load. `progress.json` is written last, with the SHA-256 of each file: a folder
without it is unfinished.

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
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

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
from distributed.sharding import ShardedSystem
from distributed.world import World
from storage.durable_files import replace_folder, restore_replaced, write_text
from storage.fingerprints import file_digest
from storage.plain_json import json_text

# Sums over the targets of an epoch so far: of the loss, and of each channel's own (none: not known).
Losses = tuple[float, ...]
NO_LOSSES: Losses = (0.0,)
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
            written.set_result(self._write(aside, self._state(sharded, losses), None))
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
        state = snapshot(self._state(sharded, losses))
        written = self._thread.submit(self._write, aside, state, self._group)
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
                f"checkpoint {step_folder(self.folder, step)}: could not be written ({_first_line(error)}); earlier "
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

    def _state(self, sharded: ShardedSystem, losses: Losses) -> dict[str, Any]:
        total, *of_channels = (torch.tensor(part, dtype=torch.float64) for part in losses)
        own = {f"loss/{self.world.rank}": total}
        if of_channels:
            own[f"channel_losses/{self.world.rank}"] = torch.stack(of_channels)
        return {**_tensors(sharded), **own}

    def _write(self, aside: Path, state: dict[str, Any], group: dist.ProcessGroup | None) -> dict[str, str]:
        """Write this rank's files; SHA-256 by name, once they are on disk. A collective of the group."""
        writer = dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True)
        dcp.save(state, storage_writer=writer, process_group=group, no_dist=self.world.size == 1)
        own = aside.glob(f"shard-{self.world.rank + 1:05d}-*.safetensors")
        return {path.name: file_digest(path, flush=True) for path in own}

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
        damage = self._damage(path, progress)
        if damage:
            raise InputError(f"checkpoint {damage}; use another --checkpoint, or restore the file from a copy")
        return progress, self._fill(path, progress, sharded, weights_only)

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
                damage = self._damage(path, progress)
            except InputError as error:
                if not isinstance(error, DamagedCheckpoint):
                    raise
                damage = str(error)
            if damage:
                damaged.append(damage)
                if self.world.is_first:
                    print(f"warning: checkpoint {damage}; going on from the one before", flush=True)
                continue
            self._check_best(progress)
            return progress, self._fill(path, progress, sharded, False)
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
            damage = self._damage(path, read_progress(path, progress.best_step))
        except DamagedCheckpoint as error:
            damage = str(error)
        if damage:
            raise InputError(
                f"checkpoint {damage}, and it is the best so far, which the run needs at its end; restore the file "
                f"from a copy, or delete {self.folder} to begin again"
            )

    def _fill(self, path: Path, progress: Progress, sharded: ShardedSystem, weights_only: bool) -> Losses:
        if not weights_only:
            _make_optimizer_state(sharded)
        reader = dcp.HuggingFaceStorageReader(str(path))
        stored = reader.read_metadata().state_dict_metadata
        wanted = _weights(sharded) if weights_only else _tensors(sharded)
        missing = sorted(set(wanted) - set(stored))
        if missing:
            raise InputError(
                f"checkpoint {path}: lacks {missing[0]} and {len(missing) - 1} more; it belongs to another model or "
                "table.optimizer; use the run's own config.yaml or a new run folder"
            )
        for key, value in wanted.items():
            entry = stored[key]
            assert isinstance(entry, TensorStorageMetadata)
            if entry.size != value.size():
                raise InputError(
                    f"checkpoint {path}: {key} has shape {tuple(entry.size)}, model {tuple(value.size())}; "
                    "it belongs to another model or dataset; use the run's own config.yaml or a new run folder"
                )
        losses = {
            key: torch.zeros(entry.size, dtype=torch.float64)
            for key, entry in stored.items()
            if key.startswith(("loss/", "channel_losses/")) and isinstance(entry, TensorStorageMetadata)
        }
        dcp.load({**wanted, **losses}, storage_reader=reader, no_dist=self.world.size == 1)
        return losses_of_rank(losses, progress.world, self.world.rank, self.world.size)

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

    def _damage(self, path: Path, progress: Progress) -> str:
        """What is wrong with a checkpoint's files, the same on all ranks; "" where nothing is."""
        names = sorted(progress.files)
        found = "" if names else f"{path}: progress.json names no files"
        for name in names[self.world.rank :: self.world.size]:
            if not (path / name).exists():
                found = found or f"{path}: {name} is missing"
            elif file_digest(path / name) != progress.files[name]:
                found = found or f"{path}: {name} is not as it was written (SHA-256 differs)"
        return next((damage for damage in self.world.gather(found) if damage), "")

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


def losses_of_rank(stored: Mapping[str, torch.Tensor], num_written: int, rank: int, num_ranks: int) -> Losses:
    """What a rank goes on from: its own losses where as many ranks wrote them, else those of all on the first rank.

    Args:
        stored: float64, "loss/<rank>" [] and "channel_losses/<rank>" [C] of each rank that wrote; checkpoints of
            earlier versions lack the latter.
    """
    of_ranks = []
    for other in range(num_written):
        total = stored.get(f"loss/{other}", torch.zeros((), dtype=torch.float64)).reshape(1)
        of_channels = stored.get(f"channel_losses/{other}", torch.zeros(0, dtype=torch.float64))
        of_ranks.append(torch.cat([total, of_channels]))
    if num_written == num_ranks:
        own = of_ranks[rank]
    else:
        own = sum(of_ranks[1:], of_ranks[0]) if rank == 0 else torch.zeros_like(of_ranks[0])
    return tuple(own.tolist())


def _tensors(sharded: ShardedSystem) -> dict[str, Any]:
    """Weights and optimiser state, flat by name."""
    tensors = _weights(sharded)
    for parameter, state in sharded.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{parameter}/{name}": value for name, value in state.items()})
    return tensors


def _weights(sharded: ShardedSystem) -> dict[str, Any]:
    return {f"model/{key}": value for key, value in sharded.system.state_dict().items()}


def _make_optimizer_state(sharded: ShardedSystem) -> None:
    """Adam and Adagrad make their state at the first step: take one of zero gradients, before a load overwrites all."""
    for parameter in sharded.dense_parameters:
        parameter.grad = torch.zeros_like(parameter)
    sharded.optimizer.step()
    sharded.optimizer.zero_grad(set_to_none=True)


def _first_line(error: BaseException) -> str:
    """What the system said: of a failure on several ranks, that of the first."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

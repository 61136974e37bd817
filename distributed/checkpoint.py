"""Checkpoints: written aside and renamed, checksummed, readable by any number of ranks, without pickle.

Tensors go through torch.distributed.checkpoint into one safetensors file per rank; a row-wise table
is saved as the row ranges each rank holds and read back as the ranges each rank needs, so W ranks
save and any W' ranks load. `progress.json` is written last, with the SHA-256 of each file: a folder
without it is unfinished.

    RUN/checkpoints/step-00000670/shard-*.safetensors, progress.json
    RUN/checkpoints/index.json      {"latest": step, "best": step}
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed.checkpoint as dcp
from pydantic import Field, TypeAdapter, ValidationError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from configs.errors import InputError
from distributed.durable_files import file_digest, flush_to_disk, write_text
from distributed.run_storage import RunStorage
from distributed.sharding import ShardedSystem
from distributed.world import World

_SMALL = ("config.yaml", "plan.txt", "metrics.jsonl")  # that go with a checkpoint of a run at a URI


@dataclass
class Progress:
    """Where a run stands, beside its tensors.

    Attributes:
        step: optimiser steps taken, skipped ones included.
        epoch: epochs completed, each with its validation.
        epoch_steps: steps taken of the epoch under way.
        epoch_targets: targets trained in those.
        epoch_seconds: time they took, over restarts.
        epoch_skipped: of those steps, the ones not taken as their loss or gradient was not finite.
        skipped_in_a_row: skipped steps up to now without one that was taken.
        best_metric: best validation metric so far (None before the first validation).
        best_step: the step it was seen at.
        stale_epochs: validations since then.
        seconds: training time of completed epochs, over restarts.
        fingerprints: of the dataset and graph this run trains on.
        world: ranks that wrote it.
        files: SHA-256 of each file of the checkpoint; empty before it is saved.
    """

    step: int = 0
    epoch: int = 0
    epoch_steps: int = 0
    epoch_targets: int = 0
    epoch_seconds: float = 0.0
    epoch_skipped: int = 0
    skipped_in_a_row: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    stale_epochs: int = 0
    seconds: float = 0.0
    fingerprints: dict[str, str] = field(default_factory=dict)
    world: int = 1
    files: dict[str, str] = field(default_factory=dict)


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

    def save(self, sharded: ShardedSystem, progress: Progress, loss: float = 0.0) -> None:
        """Write the state after `progress.step`; then drop all but the best and the latest `keep`.

        Args:
            loss: this rank's sum of losses in the epoch under way.

        Raises:
            InputError: the files could not be written (disk full, quota, permissions); what there was is as before.
        """
        final = _step_folder(self.folder, progress.step)
        aside = final.with_name(f".{final.name}.unfinished")
        try:
            if self._keeps_folder:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
            self.world.barrier()
            tensors = {**_tensors(sharded), f"loss/{self.world.rank}": torch.tensor(loss, dtype=torch.float64)}
            writer = dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=self.world.size == 1)
            self.world.barrier()
            own = self._own_digests(aside)
            progress.world = self.world.size
            progress.files = {name: digest for part in self.world.gather(own) for name, digest in part.items()}
            if self._keeps_folder:
                write_text(aside / "progress.json", json.dumps(asdict(progress), indent=1))
                flush_to_disk(aside)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(aside, final)
                flush_to_disk(self.folder)
            self._publish(final, list(own), progress)
            if self._keeps_folder:
                self._prune(progress)
        except (OSError, CheckpointException) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise InputError(
                f"checkpoint {final}: could not be written ({_first_line(error)}); earlier checkpoints are whole: make "
                "room or mend the permissions, and repeat the command"
            ) from None
        self.world.barrier()

    def load(
        self, which: str, sharded: ShardedSystem, fingerprints: Mapping[str, str], *, weights_only: bool = False
    ) -> tuple[Progress, float]:
        """Fill `sharded` from a checkpoint in place ("latest", "best" or a step).

        Args:
            fingerprints: of the dataset and graph at hand; it must have been trained on the same.
            weights_only: leave the optimisers as they are.

        Returns:
            Where the run stood; and this rank's sum of losses in the epoch that was under way (over all ranks the
            same sum, however many wrote it).

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

    def resume(self, sharded: ShardedSystem, fingerprints: Mapping[str, str]) -> tuple[Progress, float]:
        """Fill `sharded` from the latest checkpoint that is whole; see `load`.

        Raises:
            InputError: there are checkpoints and none is whole, or the best one so far is not.
        """
        damaged = []
        for step in reversed(_steps(self.folder)):
            path = _step_folder(self.folder, step)
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
            self._check_best(progress, fingerprints)
            return progress, self._fill(path, progress, sharded, False)
        raise InputError(
            f"run {self.run}: no checkpoint is whole ({'; '.join(damaged) or 'none is there'}); restore one from a "
            f"copy, or delete {self.folder} to begin again"
        )

    def bring(self) -> None:
        """Have here what the run's URI holds, if it is one: small files, and the latest and the best checkpoint."""
        self.storage.pull()
        self.world.barrier()

    def exists(self) -> bool:
        """Whether there is anything to resume from."""
        return (self.folder / "index.json").exists()

    def _check_best(self, progress: Progress, fingerprints: Mapping[str, str]) -> None:
        if progress.best_step in (None, progress.step):
            return
        path, best = find_checkpoint(self.run, str(progress.best_step), fingerprints)
        damage = self._damage(path, best)
        if damage:
            raise InputError(
                f"checkpoint {damage}, and it is the best so far, which the run needs at its end; restore the file "
                f"from a copy, or delete {self.folder} to begin again"
            )

    def _fill(self, path: Path, progress: Progress, sharded: ShardedSystem, weights_only: bool) -> float:
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
        losses = {key: torch.zeros((), dtype=torch.float64) for key in stored if key.startswith("loss/")}
        dcp.load({**wanted, **losses}, storage_reader=reader, no_dist=self.world.size == 1)
        if progress.world == self.world.size:
            return float(losses.get(f"loss/{self.world.rank}", 0.0))
        return float(sum(losses.values())) if self.world.is_first else 0.0

    def _own_digests(self, folder: Path) -> dict[str, str]:
        """SHA-256 by name of the files that this rank wrote, once they are on disk."""
        own = folder.glob(f"shard-{self.world.rank + 1:05d}-*.safetensors")
        return {path.name: file_digest(path, flush=True) for path in own}

    def _publish(self, path: Path, own: list[str], progress: Progress) -> None:
        """Make a checkpoint count: its own files of every rank first, progress.json and the index after them."""
        self.world.barrier()  # every node's folder has its name
        self.storage.push([f"checkpoints/{path.name}/{name}" for name in own])
        self.world.barrier()
        if self._keeps_folder:
            index = {"latest": progress.step, "best": progress.best_step}
            write_text(self.folder / "index.json", json.dumps(index, indent=1))
        if self.world.is_first:
            small = [name for name in _SMALL if (self.storage.local / name).exists()]
            self.storage.push(small, [f"checkpoints/{path.name}/progress.json", "checkpoints/index.json"])

    def _damage(self, path: Path, progress: Progress) -> str:
        """What is wrong with a checkpoint's files, the same on all ranks; "" where nothing is."""
        names = sorted(progress.files)
        found = ""
        for name in names[self.world.rank :: self.world.size]:
            if not (path / name).exists():
                found = found or f"{path}: {name} is missing"
            elif file_digest(path / name) != progress.files[name]:
                found = found or f"{path}: {name} is not as it was written (SHA-256 differs)"
        return next((damage for damage in self.world.gather(found) if damage), "")

    def _prune(self, progress: Progress) -> None:
        for step in _steps(self.folder)[: -self.keep]:
            if step != progress.best_step:
                shutil.rmtree(_step_folder(self.folder, step))
        if self.world.is_first:  # a node that came later does not have all that the URI has
            names = self.storage.folders_there("checkpoints")
            for step in sorted(int(name[5:]) for name in names if name[5:].isdecimal())[: -self.keep]:
                if step != progress.best_step:
                    self.storage.remove(f"checkpoints/{_step_folder(self.folder, step).name}")


class DamagedCheckpoint(InputError):
    """A checkpoint that the index names and that is not there, or whose progress.json cannot be read."""


_StepNumber = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass
class _Index:
    """checkpoints/index.json: steps by role; there is no best one before the first validation."""

    latest: _StepNumber
    best: _StepNumber | None = None


def find_checkpoint(run: str, which: str, fingerprints: Mapping[str, str]) -> tuple[Path, Progress]:
    """The folder of checkpoint "latest", "best" or a step of a run, and where it stood. No collective.

    Raises:
        DamagedCheckpoint: its folder is gone, or its progress.json is not what `Checkpoints.save` writes.
        InputError: the run has no checkpoints or no readable index of them, or not that one (names those there
            are), or it was trained on another dataset or graph than `fingerprints` say.
    """
    folder = Path(run) / "checkpoints"
    index = _read_index(run, folder / "index.json")
    # int() takes digits of other scripts, and raises above 4,300 of them.
    is_step = re.fullmatch(r"[0-9]{1,18}", which) is not None
    step = {"latest": index.latest, "best": index.best}.get(which, int(which) if is_step else None)
    if step is None and which == "best":
        raise InputError(f"--checkpoint best: run {run} was not validated yet; name latest, or one of {_steps(folder)}")
    if step is None or (is_step and not _step_folder(folder, step).exists()):
        raise InputError(f"--checkpoint {which[:80]}: run {run} has latest, best and steps {_steps(folder)}")
    path = _step_folder(folder, step)
    progress = _read_progress(path, step)
    for what, fingerprint in fingerprints.items():
        if progress.fingerprints.get(what) != fingerprint:
            raise InputError(
                f"run {run}: was trained on {what} {progress.fingerprints.get(what)}, and the one given is "
                f"{fingerprint}; give the {what} it began with, or train a new run"
            )
    return path, progress


def _read_index(run: str, path: Path) -> _Index:
    try:
        return TypeAdapter(_Index).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise InputError(f"run {run}: no {path}; train first with jobs/train.py") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); restore it from a copy, or write "
            f'{{"latest": STEP, "best": STEP}} with steps of {_steps(path.parent)}'
        ) from None


def _reason(error: OSError | ValueError) -> str:
    """The first thing wrong with a file, with the field it is wrong in."""
    if not isinstance(error, ValidationError):
        return getattr(error, "strerror", None) or str(error)
    problem = error.errors(include_url=False)[0]
    return ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdecimal())


def _step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


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


def _read_progress(path: Path, step: int) -> Progress:
    try:
        progress = TypeAdapter(Progress).validate_json((path / "progress.json").read_bytes(), strict=True)
        if progress.step != step:
            raise ValueError(f"it is of step {progress.step}, the folder of step {step}")
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{path}: progress.json cannot be read ({_reason(error)}); use another --checkpoint"
        ) from None
    return progress


def _first_line(error: BaseException) -> str:
    """What the system said: of a failure on several ranks, that of the first."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

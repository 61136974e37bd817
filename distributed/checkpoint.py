"""Checkpoints: written aside and renamed, readable by any number of ranks, without pickle.

Tensors go through torch.distributed.checkpoint into one safetensors file per rank; a row-wise table
is saved as the row ranges each rank holds and read back as the ranges each rank needs, so W ranks
save and any W' ranks load. `progress.json` is written last: a folder without it is unfinished.

    RUN/checkpoints/step-00000670/shard-*.safetensors, progress.json
    RUN/checkpoints/index.json      {"latest": step, "best": step}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from configs.errors import InputError
from distributed.sharding import ShardedSystem
from distributed.world import World


@dataclass
class Progress:
    """Where a run stands, beside its tensors.

    Attributes:
        step: optimiser steps taken.
        epoch: epochs completed.
        best_metric: best validation metric so far (None before the first validation).
        best_step: the step it was seen at.
        stale_epochs: validations since then.
        seconds: training time so far, over restarts.
        fingerprints: of the dataset and graph this run trains on.
        world: ranks that wrote it.
    """

    step: int = 0
    epoch: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    stale_epochs: int = 0
    seconds: float = 0.0
    fingerprints: dict[str, str] = field(default_factory=dict)
    world: int = 1


class Checkpoints:
    """The checkpoints of one run; every method is called by every rank."""

    def __init__(self, run: str, world: World, keep: int = 2) -> None:
        self.run = run
        self.folder = Path(run) / "checkpoints"
        self.world = world
        self.keep = keep

    def save(self, sharded: ShardedSystem, progress: Progress) -> None:
        """Write the state after `progress.step`; then drop all but the best and the latest `keep`."""
        final = self._path(progress.step)
        aside = final.with_name(f".{final.name}.unfinished")
        if self.world.is_first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        self.world.barrier()
        tensors = _tensors(sharded, self.world)
        writer = dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True)
        dcp.save(tensors, storage_writer=writer, no_dist=self.world.size == 1)
        self.world.barrier()
        if self.world.is_first:
            _write_json(aside / "progress.json", asdict(progress))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(aside, final)
            _write_json(self.folder / "index.json", {"latest": progress.step, "best": progress.best_step})
            self._prune(progress)
        self.world.barrier()

    def load(
        self, which: str, sharded: ShardedSystem, fingerprints: Mapping[str, str], *, weights_only: bool = False
    ) -> Progress:
        """Fill `sharded` from a checkpoint in place ("latest", "best" or a step); return where it stood.

        Optimiser state and RNG come too unless `weights_only` (encoding); RNG is restored only where the
        same number of ranks wrote it.

        Args:
            fingerprints: of the dataset and graph at hand; it must have been trained on the same.

        Raises:
            InputError: no such checkpoint, one of other data, or one that does not fit the model.
        """
        path, progress = find_checkpoint(self.run, which, fingerprints)
        if not weights_only:
            _make_optimizer_state(sharded)
        tensors = _weights(sharded) if weights_only else _tensors(sharded, self.world)
        reader = dcp.HuggingFaceStorageReader(str(path))
        stored = reader.read_metadata().state_dict_metadata
        wanted = {key: value for key, value in tensors.items() if key in stored or not key.startswith("rng/")}
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
        dcp.load(wanted, storage_reader=reader, no_dist=self.world.size == 1)
        rng = f"rng/{self.world.rank}"
        if rng in wanted and progress.world == self.world.size:
            torch.set_rng_state(wanted[rng])
        return progress

    def exists(self) -> bool:
        """Whether there is anything to resume from."""
        return (self.folder / "index.json").exists()

    def _path(self, step: int) -> Path:
        return _step_folder(self.folder, step)

    def _prune(self, progress: Progress) -> None:
        steps = sorted(int(p.name[5:]) for p in self.folder.glob("step-*"))
        for step in steps[: -self.keep]:
            if step != progress.best_step:
                shutil.rmtree(self._path(step))


def find_checkpoint(run: str, which: str, fingerprints: Mapping[str, str]) -> tuple[Path, Progress]:
    """The folder of checkpoint "latest", "best" or a step of a run, and where it stood. No collective.

    Raises:
        InputError: the run has no checkpoints, or not that one (names those there are), or it was trained on
            another dataset or graph than `fingerprints` say.
    """
    folder = Path(run) / "checkpoints"
    try:
        index = json.loads((folder / "index.json").read_text())
    except (OSError, ValueError):
        raise InputError(f"run {run}: no {folder / 'index.json'}; train first with jobs/train.py") from None
    step = index.get(which) if which in ("latest", "best") else int(which) if which.isdecimal() else None
    if step is None or not (_step_folder(folder, step) / "progress.json").exists():
        there = sorted(int(path.name[5:]) for path in folder.glob("step-*"))
        raise InputError(f"--checkpoint {which}: run {run} has latest, best and steps {there}")
    path = _step_folder(folder, step)
    progress = _read_progress(path)
    for what, fingerprint in fingerprints.items():
        if progress.fingerprints.get(what) != fingerprint:
            raise InputError(
                f"run {run}: was trained on {what} {progress.fingerprints.get(what)}, and the one given is "
                f"{fingerprint}; give the {what} it began with, or train a new run"
            )
    return path, progress


def _step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _tensors(sharded: ShardedSystem, world: World) -> dict[str, Any]:
    """Everything a resume needs, flat by name: weights, optimiser state, this rank's RNG."""
    tensors = _weights(sharded)
    for parameter, state in sharded.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{parameter}/{name}": value for name, value in state.items()})
    tensors[f"rng/{world.rank}"] = torch.get_rng_state()
    return tensors


def _weights(sharded: ShardedSystem) -> dict[str, Any]:
    return {f"model/{key}": value for key, value in sharded.system.state_dict().items()}


def _make_optimizer_state(sharded: ShardedSystem) -> None:
    """Adam and Adagrad make their state at the first step: take one of zero gradients, before a load overwrites all."""
    for parameter in sharded.dense_parameters:
        parameter.grad = torch.zeros_like(parameter)
    sharded.optimizer.step()
    sharded.optimizer.zero_grad(set_to_none=True)


def _read_progress(path: Path) -> Progress:
    try:
        stored = json.loads((path / "progress.json").read_text())
        known = {f.name for f in fields(Progress)}
        return Progress(**{key: value for key, value in stored.items() if key in known})
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"checkpoint {path}: progress.json cannot be read ({error}); use another --checkpoint"
        ) from None


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.unfinished")
    aside.write_text(json.dumps(tree, indent=1))
    os.replace(aside, path)

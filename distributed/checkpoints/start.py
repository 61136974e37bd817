"""Opens the checkpoint of another run that a training starts from, and reads chosen weights from it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from configs.strict_yaml import read_yaml
from contracts.errors import InputError
from distributed.checkpoints.contents import find_damage, weights_of
from distributed.checkpoints.first_rows import first_rows
from distributed.checkpoints.index import DamagedCheckpoint, read_index, read_progress, step_folder
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.run_storage import RunStorage
from distributed.sharding import ShardedSystem
from distributed.world import World
from storage.fingerprints import value_digest

# The key, among the fingerprints of a run, of the checkpoint that its training started from.
START = "start"
_PREFIX = "model/"  # begins the names of weights in a checkpoint, see `contents.weights_of`


@dataclass(frozen=True, kw_only=True)
class StartCheckpoint:
    """The best checkpoint of another run.

    Attributes:
        run: the run, as `training.start_from` names it.
        path: the local folder of the checkpoint.
        progress: its progress record.
        shapes: the shape of each weight, by its name in `RecommenderSystem.state_dict()`.
        model: the section `model` of its config.yaml, which may be of an earlier version.
        stored_as: the names in the checkpoint of weights that are loaded under another name (`renamed`).
    """

    run: str
    path: Path
    progress: Progress
    shapes: dict[str, tuple[int, ...]]
    model: Mapping[str, Any] = field(default_factory=dict)
    stored_as: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the names and the SHA-256 of the checkpoint's files."""
        return value_digest(self.progress.files)

    def renamed(self, beginnings: Mapping[str, str]) -> StartCheckpoint:
        """Return the checkpoint with other names of some weights.

        A weight whose name is changed is no longer known by its old name. It may have several new names.

        Args:
            beginnings: new beginnings of names, such as `recommender.encoders.0`, and the beginnings in the checkpoint.

        Raises:
            InputError: no name in the checkpoint begins so.
        """
        shapes = dict(self.shapes)
        stored_as: dict[str, str] = {}
        for new, old in beginnings.items():
            found = [name for name in self.shapes if name == old or name.startswith(f"{old}.")]
            if not found:
                modules = sorted({name.rsplit(".", count)[0] for name in self.shapes for count in (1, 2, 3)})
                near = difflib.get_close_matches(old, modules, n=3, cutoff=0.0)
                raise InputError(
                    f"training.rename: no weight of training.start_from={self.run} begins with {old}; the most similar "
                    f"beginnings are {', '.join(near)}"
                )
            stored_as |= {new + name.removeprefix(old): name for name in found}
        for name in stored_as.values():
            shapes.pop(name, None)
        shapes |= {name: self.shapes[stored] for name, stored in stored_as.items()}
        return replace(self, shapes=shapes, stored_as=stored_as)

    def load(self, sharded: ShardedSystem, names: Collection[str], world: World) -> None:
        """Read the weights of these names into `sharded`, in place. A collective.

        The table may be replicated or split in either run, over any number of ranks. Of a weight that has more rows
        than in the checkpoint, the first are read, and the others stay as they are.
        """
        wanted = {}
        for key, value in weights_of(sharded).items():
            if (name := key.removeprefix(_PREFIX)) in names:
                is_same = tuple(value.size()) == self.shapes[name]
                wanted[name] = value if is_same else first_rows(value, self.shapes[name][0])
        while wanted:  # once, unless a stored weight is wanted under several names
            read = {self.stored_as.get(name, name): name for name in reversed(wanted)}
            tensors = {f"{_PREFIX}{stored}": wanted.pop(name) for stored, name in read.items()}
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(self.path)), no_dist=world.size == 1)


def open_start(run: str, world: World | None = None) -> StartCheckpoint:
    """Open the best checkpoint of a run. The checkpoint of a run at a URI is copied to this node.

    Args:
        run: the run's folder or URI.
        world: this rank's place; all ranks then use the checkpoint that is the best on rank 0. None: this process is no
            rank.

    Raises:
        InputError: this is no run, it was not validated yet, or its best checkpoint is damaged.
    """
    world = world or World(0, 1, torch.device("cpu"))
    storage = RunStorage(run)
    storage.pull("best")
    if not (storage.local / "config.yaml").exists():
        raise InputError(
            f"training.start_from={run}: has no config.yaml, so it is no run; name a run that jobs/train.py wrote"
        )
    folder = storage.local / "checkpoints"
    try:
        best = read_index(run, folder / "index.json").best
    except InputError as error:
        raise InputError(f"training.start_from: {error}") from None
    if best is None:
        raise InputError(
            f"training.start_from={run}: was not validated yet, so none of its checkpoints is the best; train it to "
            "the end of an epoch first"
        )
    step = world.gather(best)[0]
    storage.pull(str(step))
    path = step_folder(folder, step)
    try:
        progress = read_progress(path, step)
        damage = find_damage(path, progress, world)
    except DamagedCheckpoint as error:
        damage = str(error).removesuffix("; use another --checkpoint")
    if damage:
        raise InputError(
            f"training.start_from: checkpoint {damage}; restore the file from a copy, or start from another run"
        )
    model = read_yaml(str(storage.local / "config.yaml")).get("model")
    return StartCheckpoint(
        run=run, path=path, progress=progress, model=model if isinstance(model, dict) else {}, shapes=_shapes(path)
    )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight in a checkpoint's folder."""
    stored = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {
        key.removeprefix(_PREFIX): tuple(entry.size)
        for key, entry in stored.items()
        if key.startswith(_PREFIX) and isinstance(entry, TensorStorageMetadata)
    }

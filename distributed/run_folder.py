"""A run folder belongs to one experiment: the same command continues it, another one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.loading import read_yaml
from configs.schema import Config
from distributed.run_storage import RunStorage

# What may differ between the sittings of one run without changing what is learnt.
_MAY_CHANGE = (
    "dataset",  # its fingerprint is compared instead: the folder may have moved
    "graph",
    "run",
    "graph_options",
    "cluster",
    "evaluation",
    "training.max_epochs",
    "training.max_steps",
    "training.patience",
    "training.loader_workers",
    "training.checkpoint_minutes",
    "training.checkpoint_steps",
    "training.keep_checkpoints",
    "training.max_skipped_steps",
    "training.stall_seconds",
)


def open_run_folder(config: Config, fixed: tuple[str, ...] = ()) -> RunStorage:
    """The folder or URI to train into, with its small files and where its latest checkpoint stands here.

    Args:
        fixed: knobs that may change between the sittings of a run, but not of this one.

    Raises:
        InputError: `run` is not set, holds files that are not a run, or holds a run with another config
            (names the first knob that differs, and both values).
    """
    if config.run is None:
        raise InputError("run: not set; add --set run=RUN, the folder to write checkpoints and metrics to")
    storage = RunStorage(config.run)
    storage.pull("latest", tensors=False)
    _check_belongs(storage.local, config, fixed)
    return storage


def _check_belongs(folder: Path, config: Config, fixed: tuple[str, ...]) -> None:
    """Refuse a folder that is something else's."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"run={folder}: is a file; name a folder")
    stored = folder / "config.yaml"
    if not stored.exists():
        foreign = sorted(
            p.name for p in folder.iterdir() if p.name not in ("ray", "error.txt", ".config.yaml.unfinished")
        )
        if foreign:
            raise InputError(f"run={folder}: holds {foreign[0]} and no config.yaml, so it is no run; name a new folder")
        return
    old, new = _flat(read_yaml(str(stored))), _flat(config.model_dump(mode="json"))
    for name in sorted(new):
        may_change = name.startswith(_MAY_CHANGE) and not name.startswith(fixed)
        if not may_change and old.get(name, new[name]) != new[name]:
            raise InputError(
                f"run={folder}: was begun with {name}={old[name]} and the command says {new[name]}; "
                "repeat the first command to continue it, or name a new run folder"
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted leaves of nested sections."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves

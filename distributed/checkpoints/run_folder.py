"""Opens the folder to train into, and refuses to continue a run with settings that would change its result."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from configs.knobs import Decides, all_knobs, decides
from configs.schema import Config
from configs.strict_yaml import read_yaml
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.start import START, open_start
from storage.durable_files import is_temporary
from storage.plain_json import json_text

# A knob that decides one of these may not change when a run is continued. The graph is compared by its fingerprint.
FIXED_IN_A_RUN = frozenset({Decides.RESULT, Decides.SCORE})


def open_run_folder(config: Config, fixed: Collection[Decides] = FIXED_IN_A_RUN) -> RunStorage:
    """Return the folder or URI to train into.

    For a URI, the run's small files and the progress record of its latest checkpoint are then on this node.

    Args:
        config: the settings of the command.
        fixed: a knob that decides one of these must have the value that the run was started with.

    Raises:
        InputError: `run` is not set; its folder has files but no run; or it has a run with another config (the message
            names the first knob that differs, and both values), or one that started from other weights.
    """
    if config.run is None:
        raise InputError("run: not set; add --set run=RUN, the folder to write checkpoints and metrics to")
    storage = RunStorage(config.run)
    storage.pull("latest", tensors=False)
    _check_belongs(storage.local, config, fixed)
    return storage


def _check_belongs(folder: Path, config: Config, fixed: Collection[Decides]) -> None:
    """Raise unless the folder is new, is empty, or holds a run that `config` may continue."""
    if not folder.exists():
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        if not parent.is_dir():
            raise InputError(f"run={folder}: {parent} is a file, so no folder can be made in it; name another folder")
        return
    if not folder.is_dir():
        raise InputError(f"run={folder}: is a file; name a folder")
    stored = folder / "config.yaml"
    if not stored.exists():
        own = ("ray", "error.txt")
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in own and not is_temporary(p.name))
        if foreign:
            raise InputError(
                f"run={folder}: holds {foreign[0]} and no config.yaml, so it is not a run; name a new folder"
            )
        return
    content = read_yaml(str(stored))
    difference = first_difference(content, config, fixed)
    if difference is None:
        _check_start(folder, _value_at(content, "training.start_from", None), config)
        return
    name, old, new = difference[0], _shown(difference[1]), _shown(difference[2])
    advice = "repeat the first command to continue it, or name a new run folder"
    if decides(dict(all_knobs(Config))[name]) == Decides.SCORE:
        advice += f"; to rank a trained run otherwise: jobs/evaluate.py --run {config.run} --set {name}={new}"
    raise InputError(f"run={folder}: was begun with {name}={old} and the command says {new}; {advice}")


def _check_start(folder: Path, stored: str | None, config: Config) -> None:
    """Raise unless a continued run names the same weights to start from.

    The path that the run was begun with is not read again. Another path must hold the same checkpoint, unless the run
    has no checkpoint and no metrics yet, and so begins again.
    """
    given = config.training.start_from
    if given == stored:
        return
    begun = f"run={folder}: was begun with training.start_from={_shown(stored)} and the command says {_shown(given)}"
    if stored is None or given is None:
        raise InputError(f"{begun}; repeat the first command to continue it, or name a new run folder")
    recorded = recorded_start(folder)
    if recorded is not None and open_start(given).fingerprint != recorded:
        raise InputError(
            f"{begun}, whose best checkpoint is another; repeat the first command to continue it (its start_from is "
            "not read again and may be gone), or name a new run folder"
        )


def recorded_start(folder: Path) -> str | None:
    """Return the fingerprint of the checkpoint that a run started from.

    None if the run has neither checkpoints nor metrics, or started from no other run.

    Raises:
        InputError: the run's latest checkpoint or its metrics cannot be read.
    """
    if (folder / "checkpoints" / "index.json").exists():
        return find_checkpoint(str(folder), "latest", {})[1].fingerprints.get(START)
    metrics = folder / "metrics.json"  # without checkpoints: of a run without an epoch
    try:
        return str(json.loads(metrics.read_text())["started_from"]["checkpoint"])
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{metrics}: cannot be read ({error}); restore it from a copy, or delete it") from None


def first_difference(stored: dict[str, Any], config: Config, fixed: Collection[Decides]) -> tuple[str, Any, Any] | None:
    """Return the first fixed knob, by name, whose saved value differs from that in `config`; None if none differs.

    A knob that the saved config lacks counts as having today's default.

    Returns:
        The knob's name, its saved value and its new value.
    """
    new = config.model_dump(mode="json")
    others = tuple(f"model.{system}." for system in SYSTEMS if system != config.model.name)
    for name, info in sorted(all_knobs(Config), key=lambda knob: knob[0]):
        if decides(info) in fixed and not name.startswith(others):
            wanted = _value_at(new, name, None)
            found = _value_at(stored, name, config.default_of(name, info))
            if _plain(found) != _plain(wanted):
                return name, found, wanted
    return None


def _value_at(tree: Any, dotted: str, default: Any) -> Any:
    """Return the value of a knob in nested sections, or the default if a section or the knob is missing."""
    for part in dotted.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return default
        tree = tree[part]
    return tree


def _shown(value: Any) -> str:
    """Return a value as it is written in a config."""
    return value if isinstance(value, str) else json_text(value)


def _plain(value: Any) -> Any:
    """Return a tuple as a list, which it is in YAML; other values unchanged."""
    return list(value) if isinstance(value, tuple) else value

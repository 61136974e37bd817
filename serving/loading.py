"""Opens a trained run as a predictor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from configs.loading import as_override
from configs.places import shown
from configs.schema import Config
from contracts.errors import InputError
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.run_storage import RunStorage
from distributed.inference.restore import restore_alone, run_config
from distributed.inference.scoring import Scorer
from distributed.inputs import Inputs
from distributed.job_paths import absolute, resolve_paths
from distributed.world import World
from serving.predictor import Predictor
from storage.fingerprints import value_digest


def load(
    run: str,
    checkpoint: str | int = "best",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    dataset: str | Sequence[str] | None = None,
    graph: str | Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Predictor:
    """Open a trained run in this process, without Ray and without a process group.

    The run's dataset is opened too, and its graph where the model or its ranking reads one. The files of the checkpoint
    are compared with their SHA-256.

    Args:
        run: the run's folder or URI.
        checkpoint: "best", "latest" or a step.
        device: where to compute; "auto": on a GPU if torch finds one.
        dataset: where the run's dataset is now, or a list of where its datasets are; None: where they were in
            training.
        graph: the same for the graph.
        settings: knobs of evaluation by name that differ from the run's, such as {"evaluation.held_items_gib": 4}.

    Raises:
        InputError: there is no such run, checkpoint or device, a file is missing, damaged or of other data, or a
            setting is not one of evaluation.
    """
    folder = absolute("run", str(run))
    assert folder is not None
    which = str(checkpoint)
    moved = {name: path for name, path in (("dataset", dataset), ("graph", graph)) if path is not None}
    for name in settings or ():
        if not name.startswith("evaluation."):
            raise InputError(f"settings: {name} is not a knob of evaluation; the run's own value holds")
    overrides = [as_override(*one) for one in {**(settings or {}), **moved}.items()]
    config = resolve_paths(run_config(folder, overrides, which))
    if graph is not None and not config.reads_graph:
        raise InputError(f"graph={shown(graph)}: run {folder} reads no graph, in training or in ranking; leave it out")
    where = _device(device)
    # It warns of a name that torch has deprecated and TorchRec still uses.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    inputs, sharded, step = restore_alone(config, which, where)
    scorer = Scorer(sharded=sharded, inputs=inputs, config=config, world=World.alone(where))
    return Predictor(scorer=scorer, step=step, device=where, identity=_identity(config, inputs, step))


def _identity(config: Config, inputs: Inputs, step: int | None) -> dict[str, str]:
    """Return the model, the step, and fingerprints of the weights' files, the dataset and the graph."""
    found = {"model": config.model.name, "step": str(step), **inputs.fingerprints}
    if step is not None:
        local = str(RunStorage(config.run or "").local)
        found["weights"] = value_digest(sorted(find_checkpoint(local, str(step), {})[1].files.items()))
    return found


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(f"device={name!r}: is neither auto, cpu nor cuda") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device={name!r}: torch finds no such device on this machine; use cpu or auto")
    return device

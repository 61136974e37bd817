"""Decides what a new run loads from the run that `training.start_from` names, and reports it as a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from configs.schema import Config
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.start import StartCheckpoint, open_start
from distributed.freezing import frozen_names, matching
from distributed.inputs import Inputs
from distributed.sharding import ShardedSystem
from distributed.training.start_checks import (
    check_features,
    check_loaded,
    check_same_vectors,
    other_functions,
    random_for_ever,
)
from distributed.training.start_plan import StartPlan
from distributed.training.start_weights import Weight
from distributed.world import World
from model.blocks.item_table import TABLE
from model.system import RecommenderSystem


def check_start(config: Config, inputs: Inputs, system: RecommenderSystem) -> None:
    """Raise the errors of `training.start_from`, `leave_out` and `freeze`, before any rank is started.

    A run that has checkpoints continues from those, so the other run is then not read.

    Args:
        config: the settings.
        inputs: the opened dataset and graph.
        system: the new model, before it is sharded.

    Raises:
        InputError: see `plan_start` and `open_start`.
    """
    frozen_names(system, config.training.freeze)
    if config.training.start_from is None:
        return
    assert config.run is not None
    if not (RunStorage(config.run).local / "checkpoints" / "index.json").exists():
        source = open_start(config.training.start_from)
        plan_start(
            config, inputs.dataset.fingerprint, system, source, encoders=inputs.encoders, ancestors=inputs.ancestors
        )


def start(config: Config, inputs: Inputs, sharded: ShardedSystem, world: World) -> StartPlan | None:
    """Load what a new run starts from, into `sharded` in place. A collective.

    Returns:
        What was loaded and what is frozen; None if the config neither starts from another run nor freezes weights.

    Raises:
        InputError: see `plan_start` and `open_start`.
    """
    training = config.training
    if training.start_from is None and not training.freeze:
        return None
    source = open_start(training.start_from, world) if training.start_from is not None else None
    plan = plan_start(
        config,
        inputs.dataset.fingerprint,
        sharded.system,
        source,
        encoders=inputs.encoders,
        ancestors=inputs.ancestors,
    )
    if source is not None:
        assert plan.source is not None
        plan.source.load(sharded, plan.loaded, world)
    return plan


def plan_start(
    config: Config,
    dataset: str,
    system: RecommenderSystem,
    source: StartCheckpoint | None,
    *,
    encoders: Mapping[str, str] = MappingProxyType({}),
    ancestors: Mapping[str, int] = MappingProxyType({}),
) -> StartPlan:
    """Return which weights of a new run are loaded, fresh and frozen.

    A weight is loaded if the checkpoint has one of its name, or of the name that `training.rename` gives it there, and
    `training.leave_out` does not match the name. If the other run has another dataset, what the model computes from the
    dataset before each epoch is not loaded. If the new dataset has grown from the other, the rows of old items are
    loaded, and those of new items are fresh.

    Args:
        config: the settings of the new run.
        dataset: fingerprint of the new run's dataset.
        system: the new run's model, sharded or not.
        source: the checkpoint to start from; None: there is none.
        encoders: the labels of the encoders of the new run's dataset (`Inputs.encoders`).
        ancestors: the datasets that the new run's dataset has grown from (`Inputs.ancestors`).

    Raises:
        InputError: a pattern or a beginning of names matches nothing, everything would be frozen, nothing would be
            loaded, a shape differs, the item table, or other weights of single items, would be loaded from a run on
            another dataset that the new one has not grown from, or weights would be loaded that were trained on the
            vectors of another encoder, or for another feature.
    """
    own = {name: tuple(value.size()) for name, value in system.state_dict().items()}
    if source is not None:
        for beginning in config.training.rename:
            matching("training.rename", [f"{beginning}*"], own)
        source = source.renamed(config.training.rename)
    theirs = source.shapes if source else {}
    left_out = matching("training.leave_out", config.training.leave_out, sorted({*own, *theirs}))
    frozen = frozen_names(system, config.training.freeze)
    parameters = {name for name, _ in system.named_parameters()}
    # What the model computes from the catalogue before each epoch means nothing to another catalogue.
    is_other = source is not None and source.progress.fingerprints.get("dataset") != dataset
    computed = {f"recommender.{name}" for name in system.recommender.epoch_buffers}
    fits = not is_other and not computed & left_out and all(theirs.get(name) == own[name] for name in computed)
    stale = set() if fits else computed  # if one must be computed, all are
    of_items = {f"recommender.{name}" for name in system.recommender.of_items}
    of_items |= {name for name in own if f".{TABLE}." in name}
    num_old = ancestors.get(source.progress.fingerprints.get("dataset", "")) if source is not None else None
    grown = {
        name: f"loaded: {num_old:,} old items; {own[name][0] - num_old:,} new items are fresh"
        for name in of_items & theirs.keys()
        if num_old is not None and theirs[name] == (num_old, *own[name][1:])
    }
    weights = tuple(
        Weight(
            name=name,
            shape=shape,
            origin=_origin(name, theirs, left_out, grown, is_new=source is None, is_stale=name in stale),
            training="frozen" if name in frozen else "trained" if name in parameters else "not a parameter",
        )
        for name, shape in own.items()
    )
    unused = tuple(
        Weight(name=name, shape=shape, origin="", training="")
        for name, shape in sorted(theirs.items())
        if name not in own
    )
    plan = StartPlan(source=source, weights=weights, unused=unused)
    if source is None:
        return plan
    check_features(plan, source, system, config)
    check_loaded(plan, source, system, config, of_items if is_other and num_old is None else frozenset())
    check_same_vectors(source, system, encoders, config)
    return replace(plan, notes=(*other_functions(source, config), *random_for_ever(plan)))


def _origin(
    name: str,
    theirs: Collection[str],
    left_out: Collection[str],
    grown: Mapping[str, str],
    *,
    is_new: bool,
    is_stale: bool,
) -> str:
    if is_new:
        return "fresh"
    if is_stale:
        return "fresh: computed before each epoch"
    if name in left_out:
        return "fresh: left out"
    return grown.get(name, "loaded") if name in theirs else "fresh: the other run has none"

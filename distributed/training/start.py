"""Decides what a new run loads from the run that `training.start_from` names, and reports it as a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from configs.places import shown
from configs.schema import Config
from contracts.errors import InputError
from contracts.text_table import text_table
from data.encoding.facts import check_same_encoders
from distributed.checkpoints.index import encoder_key, feature_key
from distributed.checkpoints.run_storage import RunStorage
from distributed.checkpoints.start import START, StartCheckpoint, open_start
from distributed.freezing import frozen_names, matching
from distributed.inputs import Inputs
from distributed.sharding import ShardedSystem
from distributed.telemetry import Telemetry
from distributed.training.start_weights import Weight, grouped, size_of
from distributed.world import World
from model.blocks.item_table import TABLE
from model.recommender import Recommender
from model.system import RecommenderSystem
from storage.durable_files import write_text

_MOST_ROWS = 40  # of the printed table; start.txt has all
_MOST_NAMED = 5  # names in a message


@dataclass(frozen=True, kw_only=True)
class StartPlan:
    """What a new run begins with.

    Attributes:
        source: the checkpoint that weights are loaded from; None: all weights are fresh.
        weights: every weight of the new run.
        unused: the checkpoint's weights that the new model does not have.
    """

    source: StartCheckpoint | None
    weights: tuple[Weight, ...]
    unused: tuple[Weight, ...]

    @property
    def loaded(self) -> set[str]:
        """The names of the weights that are loaded, some of them only the rows of old items."""
        return {weight.name for weight in self.weights if weight.origin.startswith("loaded")}

    def has_epoch_buffers(self, recommender: Recommender) -> bool:
        """Return whether everything that the model computes before each epoch was loaded."""
        return self.loaded >= {f"recommender.{name}" for name in recommender.epoch_buffers}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of the checkpoint, as the progress record of the new run keeps it."""
        return {START: self.source.fingerprint} if self.source else {}

    def announce(self, run: Path, telemetry: Telemetry) -> None:
        """Print the table by modules on rank 0, and write it with every weight to RUN/start.txt."""
        if telemetry.active:
            write_text(run / "start.txt", self.text(by_module=False) + "\n")
        telemetry.say(f"What the run begins with (start.txt has every weight):\n{self.text(by_module=True)}")

    def text(self, by_module: bool) -> str:
        """Return the table: a row for each weight, or for each module whose weights all begin and train alike."""
        lines = []
        if self.source:
            at = f"step {self.source.progress.step}, fingerprint {self.source.fingerprint[:12]}"
            lines.append(f"starting from the best checkpoint of {self.source.run} ({at})")
        every = [*self.weights, *self.unused]
        groups = grouped(every) if by_module else {weight.name: [weight] for weight in every}
        rows: list[tuple[str, str, str, str]] = []
        unused: list[str] = []
        for name, (first, *others) in groups.items():
            if first in self.unused:
                unused.append(name)
            else:
                rows.append((name, size_of([first, *others]), first.origin, first.training))
        shown = rows[:_MOST_ROWS] if by_module else rows
        lines.append(text_table(shown, ["weight", "shape", "at the start", "in training"]))
        if len(shown) < len(rows):
            lines.append(f"and {len(rows) - len(shown)} more rows")
        if unused:
            lines.append(f"not loaded, because this model has no such weight: {', '.join(unused)}")
        return "\n".join(lines)


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
    if source is not None:
        _check_loaded(plan, source, config, of_items if is_other and num_old is None else frozenset())
        _check_encoders(source, system, encoders, config)
        _check_features(plan, source, system, config)
    return plan


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


def _check_loaded(plan: StartPlan, source: StartCheckpoint, config: Config, of_other_items: Collection[str]) -> None:
    """Raise unless the weights that are to be loaded fit; see `plan_start`.

    Weights of these names, `of_other_items`, have an entry for each item of a dataset that is not the new run's.
    """
    loaded = [weight for weight in plan.weights if weight.origin == "loaded"]  # as a whole
    knob = f"training.start_from={source.run}"
    if not plan.loaded:
        raise InputError(
            f"{knob}: none of its {len(source.shapes)} weights would be loaded into model.name={config.model.name}, "
            f"which has {len(plan.weights)}; name a run of the same model, leave out less, or remove start_from"
        )
    others = [weight.name for weight in loaded if weight.name in of_other_items]
    tables = list(dict.fromkeys("table.*" if f".{TABLE}." in name else name for name in others))
    if tables:
        left_out = json.dumps([*config.training.leave_out, *tables])
        raise InputError(
            f"{knob}: was trained on another dataset than {shown(config.dataset)}, so the entries of its "
            f"{' and '.join(tables)} are of other items; set training.leave_out={left_out} to begin with fresh ones"
        )
    differing = [weight for weight in loaded if weight.shape != source.shapes[weight.name]]
    if differing:
        first = differing[0]
        more = f" ({len(differing) - 1} more weights also differ)" if len(differing) > 1 else ""
        shapes = f"{list(source.shapes[first.name])} there and {list(first.shape)} in run={config.run}{more}"
        names = json.dumps([*config.training.leave_out, *(weight.name for weight in differing)])
        to_names = f"={names}" if len(differing) <= _MOST_NAMED else " to patterns of their names"
        raise InputError(
            f"{knob}: {first.name} has shape {shapes}; give both runs the same model settings, or set "
            f"training.leave_out{to_names} to begin with fresh weights"
        )


def _check_encoders(
    source: StartCheckpoint, system: RecommenderSystem, encoders: Mapping[str, str], config: Config
) -> None:
    """Raise if features that the model reads are of another encoder than in the other run, as far as both are known."""
    keys = {encoder_key(name): name for name in system.recommender.needs.features}
    theirs, ours = (
        {keys[key]: label for key, label in side.items() if key in keys}
        for side in (source.progress.fingerprints, encoders)
    )
    check_same_encoders(
        theirs,
        ours,
        (f"training.start_from={source.run}", f"dataset={shown(config.dataset)}"),
        "encode the items with the same encoder and settings, or remove start_from",
    )


def _check_features(plan: StartPlan, source: StartCheckpoint, system: RecommenderSystem, config: Config) -> None:
    """Raise if weights of one feature would be loaded for another, as far as the other run recorded its features.

    Modules are numbered by the order of the features, so the numbers alone do not tell whose weights they hold.
    """
    of_modules = system.recommender.module_features
    loaded = plan.loaded
    for module, ours in of_modules.items():
        name = next((one for one in sorted(loaded) if one.startswith(f"recommender.{module}.")), None)
        if name is None:
            continue
        parts = source.stored_as.get(name, name).split(".")[1:]
        keys = (feature_key(".".join(parts[:count])) for count in range(1, len(parts)))
        theirs = next((source.progress.fingerprints[key] for key in keys if key in source.progress.fingerprints), ours)
        if theirs != ours:
            left_out = json.dumps([*config.training.leave_out, f"recommender.{module}.*"])
            raise InputError(
                f"training.start_from={source.run}: recommender.{module} of that run reads the feature "
                f"{theirs!r}, and in run={config.run} it would read {ours!r}; read the same features in the same "
                f"order, or set training.leave_out={left_out} to begin with fresh weights"
            )

"""Checks whether the weights of another run fit a new one, and notes what fits and may surprise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

from configs.places import shown
from configs.schema import Config
from contracts.errors import InputError
from data.encoding.facts import check_same_encoders
from distributed.checkpoints.index import encoder_key, feature_key
from distributed.checkpoints.start import StartCheckpoint
from distributed.training.start_plan import StartPlan
from model.blocks.item_table import TABLE
from model.system import RecommenderSystem

_MOST_NAMED = 5  # names in a message


def check_loaded(
    plan: StartPlan,
    source: StartCheckpoint,
    system: RecommenderSystem,
    config: Config,
    of_other_items: Set[str],
) -> None:
    """Raise unless the weights that are to be loaded fit; see `start.plan_start`.

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
        of_modules = system.recommender.module_features.items()
        feature = next((one for module, one in of_modules if first.name.startswith(f"recommender.{module}.")), None)
        vectors = f" and vectors of {feature} of the same width" if feature else ""
        raise InputError(
            f"{knob}: {first.name} has shape {shapes}; give both runs the same model settings{vectors}, or set "
            f"training.leave_out{to_names} to begin with fresh weights"
        )


def check_same_vectors(
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


def check_features(plan: StartPlan, source: StartCheckpoint, system: RecommenderSystem, config: Config) -> None:
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


def other_functions(source: StartCheckpoint, config: Config) -> list[str]:
    """Return notes on settings that differ and do not show in the shapes of weights."""
    if not config.model.system.has_heads:
        return []
    pairs = [(knob, source.model.get(knob), getattr(config.model, knob)) for knob in ("num_heads", "activation")]
    return [
        f"model.{knob} is {theirs} in {source.run} and {ours} in run={config.run}, so the loaded weights compute "
        f"something else here; set model.{knob}={theirs} unless you want that"
        for knob, theirs, ours in pairs
        if theirs not in (None, ours)
    ]


def random_for_ever(plan: StartPlan) -> list[str]:
    """Return a note on weights that are not loaded and not trained either."""
    names = [
        weight.name for weight in plan.weights if weight.origin.startswith("fresh") and weight.training == "frozen"
    ]
    if not names:
        return []
    return [
        f"{len(names)} weights that training.freeze matches are fresh, so they stay random; the first is {names[0]}; "
        "freeze fewer, or give the model the shape of the other run's"
    ]

"""Read a study file and expand it into trials, the trainings that the study compares.

A trial is one variant (named overrides of a preset) with one seed. `configs.loading.load_config` makes its config from
the preset, the command line, the variant and the seed.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictInt, ValidationError, field_validator, model_validator

from configs.knobs import Section
from configs.loading import load_config
from configs.schema import Config
from configs.strict_yaml import read_yaml
from contracts.errors import InputError

_ROOT = Path(__file__).resolve().parents[2]
# A variant's name becomes part of a folder's name and a row of a table.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,99}")
_MOST_TRIALS = 10_000
# Knobs that a study sets itself, and `cluster`, which does not influence results.
_NOT_VARIED = ("dataset", "graph", "run", "seed", "cluster")
_NOT_SET = ("graph", "run", "seed", "cluster.num_workers", "cluster.cpus_per_worker")
_ONE_RANK = {"cluster.num_workers": 1}


class Study(Section):
    """The content of a study file."""

    base: str = Field(min_length=1, description="preset, a path from the repository's root")
    title: str = Field(min_length=1, description="the question that the study answers, in one sentence")
    seeds: tuple[Annotated[StrictInt, Field(ge=0, lt=2**31)], ...]
    settings: dict[str, Any] = Field({}, description="{section.field: value} of all variants, before their own")
    variants: dict[str, dict[str, Any]] | None = Field(None, description="name to {section.field: value}")
    grid: dict[str, list[Any]] | None = Field(
        None, description="section.field to its values; every combination of values is a variant"
    )
    baseline: str | None = Field(None, description="the variant that the others are compared with")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("the list is empty; list at least one, as in [0]")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice; list each once")
        return seeds

    @field_validator("grid")
    @classmethod
    def _values_can_be_named(cls, grid: dict[str, list[Any]] | None) -> dict[str, list[Any]] | None:
        for key, values in (grid or {}).items():
            if not values:
                raise ValueError(f"{key} has no values; list at least one")
            for value in values:
                if isinstance(value, dict | list):
                    raise ValueError(f"{key}: {value} is not a single value; use `variants` instead of `grid`")
            if len({_shown(value) for value in values}) < len(values):
                raise ValueError(f"{key}: a value is listed twice; list each once")
        return grid

    @model_validator(mode="after")
    def _has_variants(self) -> Study:
        if (self.variants is None) == (self.grid is None):
            raise ValueError("expected either `variants` or `grid`; give one of the two")
        if not (self.variants or self.grid):
            raise ValueError(f"{'grid' if self.variants is None else 'variants'} is empty; there is nothing to train")
        count = len(self.variants or ()) or math.prod(len(values) for values in (self.grid or {}).values())
        if count * len(self.seeds) > _MOST_TRIALS:
            raise ValueError(
                f"{count * len(self.seeds):,} trials, more than the {_MOST_TRIALS:,} allowed; list fewer values"
            )
        named = self.named_variants()
        for name in named:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"variant {name!r} cannot name a folder; use at most 100 letters, digits and . _ = , + -"
                )
        for key in self.settings:
            if key.split(".")[0] in _NOT_VARIED:
                raise ValueError(f"settings: {key} cannot be among them; the study's command or the preset sets it")
        for key in self.varied():
            if key.split(".")[0] in _NOT_VARIED:
                raise ValueError(f"{key} cannot be varied: {', '.join(_NOT_VARIED)} cannot differ between variants")
        if self.baseline is not None and self.baseline not in named:
            raise ValueError(
                f"baseline={self.baseline}: is not a variant; name one of {', '.join(itertools.islice(named, 8))}"
            )
        return self

    def named_variants(self) -> dict[str, dict[str, Any]]:
        """Return the overrides of each variant. A grid's variants are named like "num_neighbors=5,dim=64"."""
        if self.variants is not None:
            return self.variants
        assert self.grid is not None
        leaves = [key.rpartition(".")[2] for key in self.grid]
        labels = [leaf if leaves.count(leaf) == 1 else key for leaf, key in zip(leaves, self.grid, strict=True)]
        named = {}
        for values in itertools.product(*self.grid.values()):
            name = ",".join(f"{label}={_shown(value)}" for label, value in zip(labels, values, strict=True))
            named[name] = dict(zip(self.grid, values, strict=True))
        return named

    def varied(self) -> tuple[str, ...]:
        """Return every knob that some variant sets, in the order of the file."""
        return tuple(
            self.grid or dict.fromkeys(key for overrides in (self.variants or {}).values() for key in overrides)
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a study.

    Attributes:
        variant: the variant's name.
        seed: the seed of the training.
        overrides: the variant's knobs and values.
        graph_seed: the seed of the trial's graph. It is the preset's, so trials with different seeds share a graph; but
            the trial's if it trains a share of the users, whom the seed chooses.
        config: the whole config except `run` and `graph`, which depend on the study's folder.
    """

    variant: str
    seed: int
    overrides: dict[str, Any]
    graph_seed: int
    config: Config

    @property
    def name(self) -> str:
        return trial_name(self.variant, self.seed)


def trial_name(variant: str, seed: int) -> str:
    """Return the name of a trial's folder."""
    return f"{variant}-s{seed}"


def read_study(path: str) -> Study:
    """Read a study file.

    Raises:
        InputError: the file cannot be read or is not YAML, or fields are missing, unknown or wrong. All are named.
    """
    tree = read_yaml(path)
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise InputError(f"study {path}: {problems}") from None


def expand(study: Study, path: str, overrides: Iterable[str] = ()) -> list[Trial]:
    """Return all trials, variant by variant, each with a validated config.

    Args:
        study: the study.
        path: the study's file, for messages.
        overrides: `section.field=value` for all trials.

    Raises:
        InputError: a variant's config is not valid (the message names the variant), or an override sets a knob that the
            study sets itself.
    """
    given = list(overrides)
    for override in given:
        _check_not_the_studys(override, study, path)
    graph_seed = _load(study, path, [], {}).seed
    trials = []
    for variant, knobs in study.named_variants().items():
        for seed in study.seeds:
            assigned = {**study.settings, **knobs, "seed": seed, **_ONE_RANK}
            config = _load(study, f"{path}, variant {variant}", given, assigned)
            trials.append(
                Trial(
                    variant=variant,
                    seed=seed,
                    overrides=dict(knobs),
                    graph_seed=graph_seed if config.training.user_share == 1 else seed,
                    config=config,
                )
            )
    return trials


def _load(study: Study, where: str, overrides: list[str], assigned: dict[str, Any]) -> Config:
    """Load the preset with overrides and the study's own knobs. Messages show the preset's path as in the file."""
    try:
        return load_config(str(_ROOT / study.base), overrides, assigned)
    except InputError as error:
        raise InputError(f"study {where}: {str(error).replace(f'{_ROOT}/', '')}") from None


def _check_not_the_studys(override: str, study: Study, path: str) -> None:
    key = override.partition("=")[0].strip()
    if any(_overlap(key, name) for name in _NOT_SET):
        raise InputError(f"--set {override}: a study sets {key} itself; leave out this --set")
    for word, keys in (("varies", study.varied()), ("sets", study.settings)):
        for known in keys:
            if _overlap(key, known):
                raise InputError(
                    f"--set {override}: study {path} already {word} {known}; leave out this --set, or change the file"
                )


def _overlap(key: str, other: str) -> bool:
    """Return whether two keys are equal, or one is a section that contains the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _shown(value: Any) -> str:
    """Return a value as a variant's name shows it, written as in YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _explain(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"unknown field {name}; the fields are {', '.join(Study.model_fields)}"
    if problem["type"] == "missing":
        return f"{name}: is missing; add it to the file"
    if problem["type"] == "value_error":
        return f"{name}: {message}" if name else message  # these messages name the value themselves
    return f"{name}={problem['input']!r:.120}: {message}"

"""A study: which trainings a question needs, as a file; and what each of them is.

A trial is a variant (named overrides of a preset) with a seed. Its config is the preset, the variant, the command
line and the seed, through `configs.loading.load_config` like any other.
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
from configs.yaml_text import read_yaml
from contracts.errors import InputError

_ROOT = Path(__file__).resolve().parents[2]
# A variant names folders and rows of tables.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,99}")
_MOST_TRIALS = 10_000
# What a study decides itself, and (`cluster`) what has no influence on a result.
_NOT_VARIED = ("dataset", "graph", "run", "seed", "cluster")
_NOT_SET = ("graph", "run", "seed", "cluster.num_workers", "cluster.cpus_per_worker")
_ONE_RANK = {"cluster.num_workers": 1}


class Study(Section):
    """The content of a study file."""

    base: str = Field(min_length=1, description="preset, a path from the repository's root")
    title: str = Field(min_length=1, description="what is asked, in a sentence")
    seeds: tuple[Annotated[StrictInt, Field(ge=0, lt=2**31)], ...]
    variants: dict[str, dict[str, Any]] | None = Field(None, description="name to {section.field: value}")
    grid: dict[str, list[Any]] | None = Field(None, description="section.field to its values; variants: the product")
    baseline: str | None = Field(None, description="the variant that the others are compared with")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("there is none; list at least one, as in [0]")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is there twice; name each once")
        return seeds

    @field_validator("grid")
    @classmethod
    def _values_can_be_named(cls, grid: dict[str, list[Any]] | None) -> dict[str, list[Any]] | None:
        for key, values in (grid or {}).items():
            if not values:
                raise ValueError(f"{key} has no values; list at least one")
            for value in values:
                if isinstance(value, dict | list):
                    raise ValueError(f"{key}: {value} is not a single value; name it with `variants` instead")
            if len({_shown(value) for value in values}) < len(values):
                raise ValueError(f"{key}: a value is there twice; name each once")
        return grid

    @model_validator(mode="after")
    def _has_variants(self) -> Study:
        if (self.variants is None) == (self.grid is None):
            raise ValueError("expected either `variants` or `grid`, and not both")
        if not (self.variants or self.grid):
            raise ValueError(f"{'grid' if self.variants is None else 'variants'} is empty; there is nothing to train")
        count = len(self.variants or ()) or math.prod(len(values) for values in (self.grid or {}).values())
        if count * len(self.seeds) > _MOST_TRIALS:
            raise ValueError(f"{count * len(self.seeds):,} trials; at most {_MOST_TRIALS:,}: list fewer values")
        named = self.named_variants()
        for name in named:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"variant {name!r} cannot name a folder; use letters, digits and . _ = , + - (100 at most)"
                )
        for key in self.varied():
            if key.split(".")[0] in _NOT_VARIED:
                raise ValueError(f"{key} cannot be varied: a study sets {', '.join(_NOT_VARIED)} for all trials")
        if self.baseline is not None and self.baseline not in named:
            raise ValueError(
                f"baseline={self.baseline}: is no variant; name one of {', '.join(itertools.islice(named, 8))}"
            )
        return self

    def named_variants(self) -> dict[str, dict[str, Any]]:
        """Overrides by variant; those of a grid are named by their values, as in "num_neighbors=5,dim=64"."""
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
        """Every knob that some variant sets, in the order of the file."""
        return tuple(
            self.grid or dict.fromkeys(key for overrides in (self.variants or {}).values() for key in overrides)
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a study.

    Attributes:
        overrides: the variant's knobs and values.
        graph_seed: of the trial's graph: the preset's, so that trials that differ in their seed share a graph.
        config: everything but `run` and `graph`, which depend on the study's folder.
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
    """What a trial's folder is called."""
    return f"{variant}-s{seed}"


def read_study(path: str) -> Study:
    """A study file.

    Raises:
        InputError: unreadable, not YAML, or a field that is missing, unknown or wrong (all of them are named).
    """
    tree = read_yaml(path)
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise InputError(f"study {path}: {problems}") from None


def expand(study: Study, path: str, overrides: Iterable[str] = ()) -> list[Trial]:
    """All trials, variant by variant, every config validated.

    Args:
        path: the study's file, for messages.
        overrides: `section.field=value` for all trials.

    Raises:
        InputError: a config that cannot be (names the variant), or an override of what the study sets itself.
    """
    given = list(overrides)
    for override in given:
        _check_not_the_studys(override, study, path)
    graph_seed = _load(study, path, [], {}).seed
    trials = []
    for variant, knobs in study.named_variants().items():
        for seed in study.seeds:
            config = _load(study, f"{path}, variant {variant}", given, {**knobs, "seed": seed, **_ONE_RANK})
            trials.append(
                Trial(variant=variant, seed=seed, overrides=dict(knobs), graph_seed=graph_seed, config=config)
            )
    return trials


def _load(study: Study, where: str, overrides: list[str], assigned: dict[str, Any]) -> Config:
    """The preset with the study's own knobs and overrides; messages name the preset as the study does."""
    try:
        return load_config(str(_ROOT / study.base), overrides, assigned)
    except InputError as error:
        raise InputError(f"study {where}: {str(error).replace(f'{_ROOT}/', '')}") from None


def _check_not_the_studys(override: str, study: Study, path: str) -> None:
    key = override.partition("=")[0].strip()
    if any(_overlap(key, name) for name in _NOT_SET):
        raise InputError(f"--set {override}: a study sets {key} itself; leave it out")
    for varied in study.varied():
        if _overlap(key, varied):
            raise InputError(f"--set {override}: study {path} varies {varied}; leave one of them out")


def _overlap(key: str, other: str) -> bool:
    """Whether one is the other, or a section with it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _shown(value: Any) -> str:
    """A value in a variant's name, written as in YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _explain(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"unknown field {name}; the fields are {', '.join(Study.model_fields)}"
    if problem["type"] == "missing":
        return f"{name}: is not there; the file must have it"
    if problem["type"] == "value_error":
        return f"{name}: {message}" if name else message  # it names the value where that helps
    return f"{name}={problem['input']!r:.120}: {message}"

"""Excludes parameters from training by their names, and finds names by shell-style patterns.

A name is that of `RecommenderSystem.state_dict()`, such as `table.collection.embeddings.item_id.weight` or
`recommender.encoder.positions.weight`. In a pattern, `*` stands for any characters, also for dots.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from contracts.errors import InputError
from model.system import RecommenderSystem

_TABLE = "table."  # begins the names of the item table's parameters
_SUGGESTED = 3


def freeze(system: RecommenderSystem, patterns: Collection[str]) -> None:
    """Exclude the parameters whose names match from training.

    Those of the recommender get no gradient. The table's rows are detached at each step instead, because TorchRec
    makes new parameters when it shards the table.

    Raises:
        InputError: see `frozen_names`.
    """
    names = frozen_names(system, patterns)
    system.table_is_frozen = any(name.startswith(_TABLE) for name in names)
    for name, parameter in system.recommender.named_parameters(prefix="recommender"):
        if name in names:
            parameter.requires_grad_(False)


def frozen_names(system: RecommenderSystem, patterns: Collection[str]) -> set[str]:
    """Return the names of the parameters that match the patterns of `training.freeze`.

    Raises:
        InputError: a pattern matches no parameter, or all parameters match.
    """
    names = [name for name, _ in system.named_parameters()]
    frozen = matching("training.freeze", patterns, names)
    if frozen and len(frozen) == len(names):
        raise InputError(
            f"training.freeze={_shown(patterns)}: matches all {len(names)} parameters, so nothing would be trained; "
            "freeze fewer; to rank the loaded weights without training, remove freeze and set training.max_epochs=0"
        )
    return frozen


def matching(knob: str, patterns: Iterable[str], names: Collection[str]) -> set[str]:
    """Return the names that match at least one pattern.

    Args:
        knob: the knob that holds the patterns, for the message.
        patterns: shell-style patterns.
        names: the names to search.

    Raises:
        InputError: a pattern matches no name. The message has the most similar names.
    """
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            near = difflib.get_close_matches(pattern, names, n=_SUGGESTED, cutoff=0.0)
            hint = f"; the most similar names are {', '.join(near)}" if near else "; the model has no weights"
            raise InputError(f"{knob}={_shown([pattern])}: matches no weight{hint}")
        found |= matches
    return found


def _shown(patterns: Iterable[str]) -> str:
    return f"[{', '.join(patterns)}]"

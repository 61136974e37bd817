"""Describes how a ranking was made, for result files and for the note beside a table of metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from configs.knobs import Decides, all_knobs, decides
from configs.schema import EvaluationConfig
from storage.plain_json import json_text

# If a smaller share of targets are repeats, an item of the history in a list is nearly always wrong.
FEW_REPEATS = 0.05
# Largest length of the suffix of a file's name. A longer one is replaced by a digest; the settings are in the file.
_LONGEST_SUFFIX = 120


def score_settings(options: EvaluationConfig) -> dict[str, Any]:
    """Return the knobs of `evaluation` that influence metrics, by name, as plain values."""
    values = options.model_dump(mode="json")
    return {name: values[name] for name, info in all_knobs(EvaluationConfig) if decides(info) == Decides.SCORE}


def differing_settings(own: EvaluationConfig, other: EvaluationConfig) -> dict[str, Any]:
    """Return the settings in which `other` differs from `own`, by name, with the plain values of `other`."""
    before = score_settings(own)
    return {name: value for name, value in score_settings(other).items() if value != before[name]}


def settings_suffix(differing: Mapping[str, Any]) -> str:
    """Return the end of a result file's name, such as "-mask_history=true", for settings that differ; "" for none."""
    if not differing:
        return ""
    text = ",".join(f"{name}={_in_a_name(value)}" for name, value in sorted(differing.items()))
    if len(text) > _LONGEST_SUFFIX:
        text = f"settings={hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"-{text}"


def _in_a_name(value: Any) -> str:
    """Return a value as text that is valid in file names and in names of objects in a store."""
    if isinstance(value, list):
        return "+".join(map(_in_a_name, value))
    return value if isinstance(value, str) else json_text(value)


def ranking_note(
    settings: Mapping[str, Any], repeat_shares: Mapping[str, float | None], *, with_advice: bool = True
) -> str:
    """Return the note beside a table of metrics: how items were ranked, the share of repeats, and advice that follows.

    Args:
        settings: as `score_settings` returns them.
        repeat_shares: for each split, the share of targets that are already in the user's history; None: no targets.
        with_advice: whether the advice is part of the note.
    """
    shares = _known(repeat_shares)
    lines = [f"Ranking: {described(settings)}."]
    if shares:
        listed = ", ".join(f"{split} {100 * share:.1f}%" for split, share in shares.items())
        advice = ranking_advice(settings, shares) if with_advice else ""
        lines.append(f"Share of targets that are already in the user's history: {listed}. {advice}".rstrip())
    return "\n".join(lines)


def described(settings: Mapping[str, Any]) -> str:
    """Return the settings as a phrase."""
    history = "hidden" if settings["mask_history"] else "kept"
    ties = {
        "pessimistic": "a tie counts against the target",
        "optimistic": "a tie counts for the target",
        "id": "of items that tie, the one with the smaller id comes first",
    }
    parts = [f"items that the user already has are {history} (evaluation.mask_history)", ties[settings["ties"]]]
    if settings["cooccurrence_weight"]:
        cap = settings["cooccurrence_cap"]
        entries = "all entries" if cap is None else f"the strongest {cap} entries"
        parts.append(
            f"co-occurrence added with weight {settings['cooccurrence_weight']:g} "
            f"(decay {settings['cooccurrence_decay']:g}, {entries} of a row) to items that are not in the input"
        )
    return ", ".join(parts)


def _known(repeat_shares: Mapping[str, float | None]) -> dict[str, float]:
    return {split: share for split, share in repeat_shares.items() if share is not None}


def ranking_advice(settings: Mapping[str, Any], repeat_shares: Mapping[str, float | None]) -> str:
    """Return advice on the settings for this share of repeats; "" if they suit it. Arguments: see `ranking_note`."""
    shares = _known(repeat_shares)
    if not shares:
        return ""
    few = max(shares.values()) < FEW_REPEATS
    if not few and settings["cooccurrence_weight"]:
        return (
            "This is a large share, and co-occurrence is added only to items that are not in the input, which lowers "
            "the rank of these targets; of all systems but ItemKNN, compare with evaluation.cooccurrence_weight=0."
        )
    if few and not settings["mask_history"]:
        return (
            "This is a small share, so items that users already have take up places in lists: also report the metrics "
            "with evaluation.mask_history=true, because the order of systems may change."
        )
    if not few and settings["mask_history"]:
        return (
            "This is a large share, and hiding the history makes these targets rank too high, because competing items "
            "are hidden and targets never are; rank with evaluation.mask_history=false."
        )
    return ""

"""How scores were made and ranked: what a result file and a table must say beside their metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from configs.knobs import Decides, all_knobs, decides
from configs.schema import EvaluationConfig
from storage.plain_json import json_text

# Below this share of repeated targets, an item of the history in a list is nearly always a wasted place.
FEW_REPEATS = 0.05
# Of a file's name; beyond, its settings are told by a digest, and stand in the file.
_LONGEST_SUFFIX = 120


def score_settings(options: EvaluationConfig) -> dict[str, Any]:
    """The knobs of `evaluation` that decide metrics, by name, as plain values."""
    values = options.model_dump(mode="json")
    return {name: values[name] for name, info in all_knobs(EvaluationConfig) if decides(info) == Decides.SCORE}


def differing_settings(own: EvaluationConfig, other: EvaluationConfig) -> dict[str, Any]:
    """The settings of `other` that are not `own`'s, by name, as plain values."""
    before = score_settings(own)
    return {name: value for name, value in score_settings(other).items() if value != before[name]}


def settings_suffix(differing: Mapping[str, Any]) -> str:
    """The end of a file's name that tells results of other settings apart, as in "-mask_history=true"; "" for none."""
    if not differing:
        return ""
    text = ",".join(f"{name}={_in_a_name(value)}" for name, value in sorted(differing.items()))
    if len(text) > _LONGEST_SUFFIX:
        text = f"settings={hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"-{text}"


def _in_a_name(value: Any) -> str:
    """A value in letters that any file system and object store takes."""
    if isinstance(value, list):
        return "+".join(map(_in_a_name, value))
    return value if isinstance(value, str) else json_text(value)


def ranking_note(
    settings: Mapping[str, Any], repeat_shares: Mapping[str, float | None], *, with_advice: bool = True
) -> str:
    """What stands beside a table of metrics: how items were ranked, how many targets are repeats, and what follows.

    Args:
        settings: of `score_settings`.
        repeat_shares: by split, the share of targets that the user's history already holds; None: no targets.
        with_advice: whether what follows is said.
    """
    shares = _known(repeat_shares)
    lines = [f"Ranking: {described(settings)}."]
    if shares:
        listed = ", ".join(f"{split} {100 * share:.1f}%" for split, share in shares.items())
        advice = ranking_advice(settings, shares) if with_advice else ""
        lines.append(f"Targets that repeat an item of the user's history: {listed}. {advice}".rstrip())
    return "\n".join(lines)


def described(settings: Mapping[str, Any]) -> str:
    """Settings in a phrase, for people."""
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
            f"(decay {settings['cooccurrence_decay']:g}, {entries} of a row) to items that the input does not hold"
        )
    return ", ".join(parts)


def _known(repeat_shares: Mapping[str, float | None]) -> dict[str, float]:
    return {split: share for split, share in repeat_shares.items() if share is not None}


def ranking_advice(settings: Mapping[str, Any], repeat_shares: Mapping[str, float | None]) -> str:
    """What follows from the share of repeats; "" where the settings fit it. Arguments as of `ranking_note`."""
    shares = _known(repeat_shares)
    if not shares:
        return ""
    few = max(shares.values()) < FEW_REPEATS
    if not few and settings["cooccurrence_weight"]:
        return (
            "With so many, mind that co-occurrence is added only to items that the input does not hold, so that "
            "repeated targets fall behind; compare with evaluation.cooccurrence_weight=0."
        )
    if few and not settings["mask_history"]:
        return (
            "With so few, lists lose places to items that users already have: evaluate with "
            "evaluation.mask_history=true as well, because the order of systems may change."
        )
    if not few and settings["mask_history"]:
        return (
            "With so many, hiding history flatters repeated targets, which are never hidden while their rivals are; "
            "rank with evaluation.mask_history=false."
        )
    return ""

"""Summarises the ranks of targets as metrics: of all targets, and of slices of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.schema import Config
from data.sequences import repeats_history
from distributed.inference.ranked_targets import Ranked
from distributed.inputs import Inputs
from evaluation.metrics import (
    bootstrap_intervals,
    bucket_masks,
    chance_metrics,
    ranking_metrics,
    sliced_metrics,
)

# Bounds of buckets that split the Amazon datasets into parts of similar size; the last bucket has no upper bound.
POPULARITY_EDGES = (0, 1, 5, 10, 20, 50)
HISTORY_EDGES = (1, 5, 10, 20, 50)
# The slice of all targets, ranked among the items of their own domain.
ALL_DOMAINS = "target in any domain, among items of its own domain"


def summarise(ranked: Ranked, inputs: Inputs, config: Config) -> dict[str, Any]:
    """Return metrics, their 95% bootstrap intervals, and the metrics of slices of the targets.

    Slices are by popularity of the target, length of the history, presence of each modality, repeats, and the target's
    group in each grouping of the items. Of a group there is a second slice with the ranks within the group.
    `repeat_share` is the share of targets that are already in the user's history.
    """
    data, options = inputs.dataset, config.evaluation
    repeats = repeats_history(data, ranked.users, ranked.positions)
    slices = {
        **bucket_masks("target popularity", data.popularity()[ranked.items], POPULARITY_EDGES),
        **bucket_masks("history length", ranked.positions, HISTORY_EDGES),
    }
    for modality in data.modalities:
        present = data.presence(modality)[ranked.items]
        slices |= {f"target with {modality}": present, f"target without {modality}": ~present}
    slices |= {"target in the history": repeats, "target new to the user": ~repeats}
    return {
        "targets": len(ranked.ranks),
        "repeat_share": float(repeats.mean()) if len(repeats) else None,
        "metrics": ranking_metrics(ranked.ranks, options.ks),
        "intervals": bootstrap_intervals(ranked.ranks, options.ks, options.bootstrap_samples, config.seed),
        "slices": sliced_metrics(ranked.ranks, slices, options.ks) | group_slices(ranked, options.ks),
    }


def group_slices(ranked: Ranked, ks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return the slices of the targets of each group, with the ranks among all items and those within the group.

    A slice within a group also has the number of its items ("candidates"), and the metrics of a ranking that is drawn
    at random ("chance").
    """
    found: dict[str, dict[str, Any]] = {}
    for within in ranked.within:
        groups = within.grouping.groups
        masks = {group.targets: within.labels == label for label, group in enumerate(groups)}
        found |= sliced_metrics(ranked.ranks, masks, ks)
        own = sliced_metrics(within.ranks, masks, ks)
        if within.grouping.name == "domain":
            found |= sliced_metrics(within.ranks, {ALL_DOMAINS: within.labels >= 0}, ks)
        for group in groups:
            if group.targets in own:
                facts = {"candidates": group.size, "chance": chance_metrics(group.size, ks)}
                found[f"{group.targets}, among {group.candidates}"] = own[group.targets] | facts
    return found

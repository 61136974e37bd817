"""Validates after an epoch: the metrics of the validation targets, overall and by domain, and the one that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.schema import Config
from distributed.inference.scoring import Scorer
from distributed.inference.summaries import ALL_DOMAINS, summarise
from distributed.inputs import Inputs
from evaluation.item_groups import domain_grouping


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The result of a validation.

    Attributes:
        chosen: the metric that chooses the best checkpoint; None if there are no targets.
        record: the metrics of all targets by name ("valid"). If there are several domains, also those of each domain's
            targets, with the keys DOMAIN/METRIC: ranked among all items ("valid_by_domain"), and among the items of
            their own domain ("valid_in_domain", which has the metrics of all targets too).
        described: the chosen metric, in words.
        by_domain: the chosen metric of each domain's targets, in words that continue a sentence; "" for one domain.
    """

    chosen: float | None
    record: dict[str, dict[str, float]]
    described: str
    by_domain: str


def validate(scorer: Scorer, inputs: Inputs, config: Config) -> Validation:
    """Rank the validation targets with the present weights. A collective."""
    groupings = domain_grouping(inputs.dataset)
    found = summarise(scorer.rank("valid", groupings), inputs, config)
    valid, slices = found["metrics"], found["slices"]
    record = {"valid": valid}
    metric, inside = config.training.metric, config.training.metric_among == "domain"
    domains: dict[str, dict[str, Any]] = {}
    for grouping in groupings:
        among_all = {group.name: slices.get(group.targets, {}) for group in grouping.groups}
        in_own = {group.name: slices.get(f"{group.targets}, among {group.candidates}", {}) for group in grouping.groups}
        record["valid_by_domain"] = _flat(among_all, config)
        whole = {name: value for name, value in slices.get(ALL_DOMAINS, {}).items() if name in valid}
        record["valid_in_domain"] = whole | _flat(in_own, config)
        domains = in_own if inside else among_all
        valid = whole if inside else valid
    listed = "".join(f", in {name} {found[metric]:.4f}" for name, found in domains.items() if found)
    where = " among the items of the own domain" if inside and groupings else ""
    return Validation(
        chosen=valid.get(metric),
        record=record,
        described=f"valid {metric}{where} {valid.get(metric, float('nan')):.4f}",
        by_domain=listed,
    )


def _flat(domains: dict[str, dict[str, Any]], config: Config) -> dict[str, float]:
    return {
        f"{domain}/{metric}": found[metric]
        for domain, found in domains.items()
        for metric in config.evaluation.metrics
        if found
    }

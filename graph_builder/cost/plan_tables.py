"""Show a plan as a table or as plain values, and compare it with the seconds of a finished build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from contracts.text_table import text_table
from graph_builder.cost.plan import Plan
from graph_builder.cost.request import Stage

# Labels of the build, or their first words, that belong to a stage with another name.
_PARTS = {
    "reading ": "features-",
    "pairs": "cooccurrence",
    "joining": "cooccurrence",
    "k-means-": "clusters-",
    "merge-": "neighbors-",
    "finish-": "neighbors-",
}


def plan_table(plan: Plan) -> str:
    """Return a table with a row per stage and the total."""
    rows = [(stage.name, f"{stage.num_tasks:,}", *_amounts(stage), _largest_term(stage)) for stage in plan.stages]
    total = _time(plan.seconds), _size(plan.memory), _size(sum(stage.bytes_moved for stage in plan.stages))
    rows.append(("total", "", *total, ""))
    headers = ["stage", "tasks", "time", "memory per process", "bytes moved", "mostly"]
    return text_table(rows, headers, right=range(1, 5))


def plan_values(plan: Plan) -> dict[str, Any]:
    """Return plain values for JSON: request, ceilings, stages with the seconds of every term, and total."""
    request = asdict(plan.request) | {"options": plan.request.options.model_dump(mode="json")}
    stages = [{"seconds": stage.seconds, **asdict(stage)} for stage in plan.stages]
    total = {"seconds": plan.seconds, "memory": plan.memory}
    return {"request": request, "ceilings": asdict(plan.ceilings), "stages": stages, "total": total}


def measured_seconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of a finished build by stage, from its seconds by label (`Executor.seconds`)."""
    found: dict[str, float] = {}
    for label, value in seconds.items():
        stage = _stage_of(label)
        found[stage] = found.get(stage, 0.0) + value
    return found


def comparison(plan: Plan, measured: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Return (stage, predicted seconds, measured seconds) in the order of the plan; None if it was not measured."""
    return [(stage.name, stage.seconds, measured.get(stage.name)) for stage in plan.stages]


def comparison_table(plan: Plan, measured: Mapping[str, float]) -> str:
    """Return `comparison` as a table, with measured / predicted seconds, and totals of the stages that have both."""
    both = comparison(plan, measured)
    known = [(predicted, found) for _, predicted, found in both if found is not None]
    both.append(("total", sum(predicted for predicted, _ in known), sum(found for _, found in known)))
    rows = [
        (name, _time(predicted), "-" if found is None else _time(found), _ratio(predicted, found))
        for name, predicted, found in both
    ]
    headers = ["stage", "predicted", "measured", "measured / predicted"]
    return text_table(rows, headers, right=range(1, 4))


def _stage_of(label: str) -> str:
    """Return the plan's stage to which a label of the build belongs."""
    for part, stage in _PARTS.items():
        if label.startswith(part):
            return stage + label.removeprefix(part)
    return label


def _amounts(stage: Stage) -> tuple[str, str, str]:
    return _time(stage.seconds), _size(stage.memory), _size(stage.bytes_moved)


def _largest_term(stage: Stage) -> str:
    name = max(stage.terms, key=lambda term: stage.terms[term])
    return f"{name} ({stage.terms[name] / stage.seconds:.0%})" if stage.seconds else ""


def _ratio(predicted: float, found: float | None) -> str:
    return "-" if not found or not predicted else f"{found / predicted:.2f}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.3g} h"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} TB"

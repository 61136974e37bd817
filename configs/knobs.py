"""What every knob says of itself: its type, default, limits, meaning, and whether it may change when work continues."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Decides(StrEnum):
    """What a knob has influence on; from that follows when it may change. A run is *continued* by giving the command
    that began it again; a study likewise, and finished trials are then kept.

    RESULT: what is learned. Fixed when a run or a study is continued.
    SCORE: how items are scored and ranked, so which checkpoint is best. Fixed when a run or a study is continued, since
        metrics of before and after could not be compared; `jobs/evaluate.py --set` may rank a finished run otherwise.
    LENGTH: when training stops. May change when a run is continued; fixed in a study, whose trials are compared.
    GRAPH: what the item graph is. A run compares the fingerprint of the graph itself; fixed in a study for trials that
        read the graph.
    RUNNING: how the work is done (speed, memory, checkpoints, machines). May always change.
    PLACE: where something lies. May always change; what lies there is compared by its fingerprint.
    """

    RESULT = "result"
    SCORE = "score"
    LENGTH = "length"
    GRAPH = "graph"
    RUNNING = "running"
    PLACE = "place"


RESULT, SCORE, LENGTH = Decides.RESULT, Decides.SCORE, Decides.LENGTH
GRAPH, RUNNING, PLACE = Decides.GRAPH, Decides.RUNNING, Decides.PLACE


class Section(BaseModel):
    """A group of knobs: unknown names are refused, values are checked, nothing changes after."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def knob(default: Any, decides: Decides, description: str, **limits: Any) -> Any:
    """A field of a `Section`: its default, what it decides, what it means, and pydantic's limits (`ge`, `lt`, ...)."""
    return Field(default, description=description, json_schema_extra={"decides": decides}, **limits)


def decides(info: FieldInfo) -> Decides:
    """What a knob said when it was made."""
    extra = info.json_schema_extra
    assert isinstance(extra, dict), f"no knob: {info}"
    return Decides(str(extra["decides"]))


def all_knobs(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every knob below a section by its dotted name, in the order of the schema; sections themselves are none."""
    for name, info in section.model_fields.items():
        inner = section_of(info)
        if inner is not None:
            yield from all_knobs(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, also where it may be None; None for a knob."""
    for kind in (info.annotation, *get_args(info.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None

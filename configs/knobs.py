"""How a knob is declared: type, default, limits, meaning, and whether it may change when a run is continued."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Decides(StrEnum):
    """What a knob influences, which determines when its value may change.

    A run or a study is *continued* by giving the command that started it again. A continued study keeps its finished
    trials.

    RESULT: what is learned. Fixed when a run or a study is continued.
    SCORE: how items are scored and ranked, and therefore which checkpoint is the best. Fixed when a run or a study is
        continued, because metrics from before and after a change could not be compared. `jobs/evaluate.py --set` may
        rank a finished run with other values.
    LENGTH: when training stops. May change when a run is continued. Fixed in a study, because its trials are compared.
    GRAPH: the contents of the item graph. A run compares the fingerprint of the graph instead of these knobs. Fixed in
        a study for trials that read the graph.
    RUNNING: how the work is done (speed, memory, checkpoints, machines). May always change.
    PLACE: where a folder is. May always change; the contents of the folder are compared by their fingerprint.
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
    """A group of knobs. Unknown names are refused, values are checked, and a section cannot be changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def knob(default: Any, decides: Decides, description: str, **limits: Any) -> Any:
    """Return a field of a `Section`.

    Args:
        default: the knob's default value.
        decides: what the knob influences.
        description: its meaning, for people: a noun phrase with its unit, and the effect of null.
        **limits: limits that pydantic checks, such as `ge` and `lt`.
    """
    return Field(default, description=description, json_schema_extra={"decides": decides}, **limits)


def decides(info: FieldInfo) -> Decides:
    """Return what a knob influences, as it was declared."""
    extra = info.json_schema_extra
    assert isinstance(extra, dict), f"no knob: {info}"
    return Decides(str(extra["decides"]))


def all_knobs(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the field of every knob in a section and in its sections, in the schema's order."""
    for name, info in section.model_fields.items():
        inner = section_of(info)
        if inner is not None:
            yield from all_knobs(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """Return the class of the section that a field holds, even if the field may be None; None for a knob."""
    for kind in (info.annotation, *get_args(info.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None

"""Describes each knob in words: its type and limits, its default, and whether it may change in a continued run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from configs.knobs import Decides, all_knobs, decides
from configs.schema import Config

# What happens when the command that began a run is given again with another value.
_ON_RESUME = {
    Decides.RESULT: "must stay: another value is refused",
    Decides.SCORE: "must stay: another value is refused; `evaluate --set` may rank a finished run with it",
    Decides.LENGTH: "may change; a study refuses another value",
    Decides.GRAPH: "the graph must stay: one built with another value is refused",
    Decides.RUNNING: "may change",
    Decides.PLACE: "may change, but what lies there must be the same",
}
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", NoneType: "null"}
# pydantic's limits, in the order in which they are listed.
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "entries: at least"}


@dataclass(frozen=True, kw_only=True)
class Description:
    """The description of a knob.

    Attributes:
        name: the name with its sections, as `--set` takes it.
        type: the type of a value, with its limits.
        default: the default, as it is written in a config.
        meaning: what the knob means.
        on_resume: whether a continued run may have another value.
    """

    name: str
    type: str
    default: str
    meaning: str
    on_resume: str


def described_knobs() -> Iterator[Description]:
    """Yield the description of every knob, in the order of the schema."""
    for name, info in all_knobs(Config):
        yield Description(
            name=name,
            type=_type_in_words(info),
            default=as_in_a_config(info.get_default(call_default_factory=True)),
            meaning=info.description or "",
            on_resume=_ON_RESUME[decides(info)],
        )


def as_in_a_config(value: Any) -> str:
    """Return a value as one line, in the form that a config or `--set` takes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _type_in_words(info: FieldInfo) -> str:
    return ", ".join([_kind(info.annotation), *_limits(info.metadata)])


def _limits(metadata: list[Any]) -> list[str]:
    found = [
        (word, getattr(limit, name)) for name, word in _LIMITS.items() for limit in metadata if hasattr(limit, name)
    ]
    return [f"{word} {value}" for word, value in found]


def _kind(annotation: Any) -> str:
    """Return a type in words, such as "whole number or null", "list of text" or "one of mean, sum"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_plural(_kind(arguments[0]))}"
    if origin is tuple:
        return f"[{', '.join(_kind(argument) for argument in arguments)}]"
    if origin is dict:
        return f"mapping of {_plural(_kind(arguments[0]))} to {_plural(_kind(arguments[1]))}"
    return _WORDS[annotation]


def _plural(kind: str) -> str:
    return f"{kind}s" if kind.endswith("number") else kind

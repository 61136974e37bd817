"""Read a config file, apply `--set section.field=value`, and explain what is wrong with either."""

from __future__ import annotations

import difflib
import json
import logging
import reprlib
from collections.abc import Collection, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from configs.knobs import all_knobs, section_of
from configs.model_options import ModelConfig
from configs.schema import Config
from configs.strict_yaml import dump_yaml, parse_yaml, read_yaml
from configs.systems.registry import SYSTEMS
from contracts.errors import InputError

log = logging.getLogger(__name__)

# Pydantic's types of error, in words for the person who wrote the config.
_MESSAGES = {
    "model_type": "is a section of knobs, such as 'model: {{dim: 64}}'; see configs/schema.py",
    "tuple_type": "must be a list, such as [10, 20]",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number in digits",
    "float_type": "must be a number, such as 0.1 or 1e-3",
    "string_type": "must be text; quote it, as in '\"2024\"'",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "finite_number": "must be a finite number",
    "too_short": "must name at least {min_length}",
    "literal_error": "must be {expected}",
    "invalid_key": "names of knobs are text; see configs/schema.py",
}
# Messages abbreviate long values: a YAML alias can expand to a value of any size.
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxdict, _SHOWN.maxlist, _SHOWN.maxstring, _SHOWN.maxother = 2, 8, 8, 120, 120


def load_config(path: str | None, overrides: Iterable[str] = (), assigned: Mapping[str, Any] | None = None) -> Config:
    """Return the validated config of a YAML file (or the defaults) with `section.field=value` overrides.

    Args:
        path: the YAML file; None: the defaults.
        overrides: texts `section.field=value`, applied in order.
        assigned: plain values by dotted knob name, set before the overrides.

    Raises:
        InputError: the file cannot be read or is not valid YAML, a key is unknown (the message names the most similar
            knob), or a value is not allowed.
    """
    tree = read_yaml(path) if path else {}
    source = path or "the defaults"
    for key, value in (assigned or {}).items():
        _assign(tree, key, value)
    given = list(overrides)
    for override in given:
        _override(tree, override)
    _check_sections_of_other_systems(tree, source, [*(assigned or {}), *(o.partition("=")[0].strip() for o in given)])
    return parse_config(tree, source, [override.partition("=")[0].strip() for override in given])


def _check_sections_of_other_systems(tree: dict[str, Any], source: str, given: Iterable[str]) -> None:
    """Refuse single knobs of systems other than `model.name`; log a note on a file's sections for such systems.

    A preset may well have sections for several systems; `ModelConfig` ignores those of the others.

    Args:
        tree: the config as read.
        source: where the config comes from, for messages.
        given: knobs that were set one by one, not in the file.

    Raises:
        InputError: a knob in `given` belongs to another system.
    """
    model = tree.get("model")
    if not isinstance(model, dict):
        return
    name = model.get("name", ModelConfig.model_fields["name"].default)
    own = [system for system, entry in SYSTEMS.items() if entry.knobs is not None]
    for other in [system for system in own if system != name and model.get(system) is not None]:
        section = f"model.{other}"
        for key in given:
            if f"{key}.".startswith(f"{section}."):
                raise InputError(
                    f"--set {key}: is a knob of {other}, but model.name={name}; leave it out, or set model.name={other}"
                )
        log.warning("note: %s: its section %s is only for model.name=%s and is ignored here", source, section, other)


def override_config(config: Config, overrides: Iterable[str], allowed: tuple[str, ...]) -> Config:
    """Return a loaded config with overrides, which may only be in the allowed sections.

    Args:
        config: such as that of a trained run.
        overrides: texts `section.field=value`, applied in order.
        allowed: names of the sections that may still change.

    Raises:
        InputError: as `load_config`, or an override is in another section.
    """
    tree = config.model_dump(mode="json")
    given = list(overrides)
    for override in given:
        section = override.partition("=")[0].partition(".")[0].strip()
        if section not in allowed:
            raise InputError(f"--set {override}: is fixed by the run; only {', '.join(allowed)} can be set here")
        _override(tree, override)
    return parse_config(tree, "of the run", [override.partition("=")[0].strip() for override in given])


def parse_config(tree: dict[str, Any], source: str, overridden: Collection[str] = ()) -> Config:
    """Return the `Config` of a plain dict (a file's content, or a config from another process), validated.

    Args:
        tree: the dict.
        source: where it comes from, for messages.
        overridden: names of the knobs whose values come from `--set` instead of the source.

    Raises:
        InputError: a value is not allowed; one line names each such field, its value, its origin and its limits.
    """
    try:
        return Config.model_validate(tree).with_ablation()
    except ValidationError as error:
        texts: dict[str, list[str]] = {}
        for problem in error.errors():  # of a knob of several types, one for each type that the value is not
            texts.setdefault(".".join(_path(problem)), []).append(_explain(problem))
        of_source: list[str] = []
        of_overrides: list[str] = []
        for name, (first, *others) in texts.items():
            more = dict.fromkeys(other.partition(": ")[2] or other for other in others)
            text = ", or ".join([first, *(other for other in more if not first.endswith(f": {other}"))])
            if any(f"{name}.".startswith(f"{knob}.") for knob in overridden):
                of_overrides.append(f"--set: {text}" if text.startswith("unknown") else f"--set {text}")
            else:
                of_source.append(text)
        parts = [f"config ({source}): {'; '.join(of_source)}"] if of_source else []
        raise InputError("; ".join([*parts, *of_overrides])) from None


def dump_config(config: Config) -> str:
    """Return the config as YAML with every knob; `load_config` reads an equal config from it."""
    return dump_yaml(config.model_dump(mode="json"))


def _override(tree: dict[str, Any], override: str) -> None:
    """Set one knob of a tree from `section.field=value`.

    The schema gives the knob's type. The value of a text knob is taken literally, so it may hold spaces, '#' or ':',
    except that `null` unsets a knob that may be unset. Values of other knobs are read as in a config file, and so is a
    list `[A, B]` for a knob that may be text or a list of texts.
    """
    key, equals, value = override.partition("=")
    key = key.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise InputError(f"--set {override}: expected section.field=value, as in --set model.dim=64")
    for end in range(1, key.count(".") + 1):
        outer = ".".join(key.split(".")[:end])
        if outer in _KNOBS and get_origin(_KNOBS[outer].annotation) is not dict:
            raise InputError(f"--set {key}: {outer} is a value, not a section; see configs/schema.py")
    info = _KNOBS.get(key)
    if info is not None and not value:
        raise InputError(f"--set {override}: has no value; give one, or leave this --set out")
    if info is not None and _is_text(info.annotation, value):
        _assign(tree, key, None if value == "null" and type(None) in get_args(info.annotation) else value)
    else:
        _assign(tree, key, _parse_value(override, value))


def as_override(name: str, value: Any) -> str:
    """Return "name=value" as `--set` takes it: text as it is, anything else in the notation of YAML."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _parse_value(override: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, RecursionError):
        raise InputError(f"--set {override}: the value is not valid YAML; quote it if it is text") from None


def _is_text(annotation: Any, value: str) -> bool:
    """Return whether a value of a type is text or None: every value, or any but a list `[A, B]`."""
    if get_origin(annotation) is Literal:
        return all(isinstance(one, str) for one in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if str in kinds and not value.lstrip().startswith("["):
            kinds = [kind for kind in kinds if get_origin(kind) is not tuple]
        return all(_is_text(kind, value) for kind in kinds)
    return annotation is str


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise InputError(f"--set {dotted}: {section} is a value, not a section; see configs/schema.py")
    node[leaf] = value


def _path(problem: Any) -> list[str]:
    """Return the names of the section and the knob of a problem.

    For a knob of one of several types, pydantic adds the name of the type, which is no name of a knob.
    """
    path = [str(part) for part in problem["loc"]]
    for depth in range(1, len(path)):
        knob = _KNOBS.get(".".join(path[:depth]))
        if knob is not None and get_origin(knob.annotation) in (Union, UnionType):
            return path[:depth]
    return path


def _explain(problem: Any) -> str:
    path = _path(problem)
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        if len(path) > 1 and path[0] == "model" and path[1] in SYSTEMS and SYSTEMS[path[1]].knobs is None:
            return f"unknown key {name}; {path[1]} has no knobs of its own"
        nearest = _nearest(path)
        hint = f"; did you mean {nearest}?" if nearest else "; see configs/schema.py for the knobs"
        return f"unknown key {name}{hint}"
    words = _MESSAGES.get(problem["type"])
    message = words.format(**problem.get("ctx", {})) if words else problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return message  # it is about several knobs, and names them
    return f"{name.removesuffix('.[key]')}={_SHOWN.repr(problem['input'])}: {message}" if name else message


def nearest_knob(name: str) -> str | None:
    """The knob or section that was most likely meant by a name that is none; None: nothing is near."""
    return _nearest(name.split("."))


def _nearest(path: list[str]) -> str | None:
    """Return the knob or section that an unknown name most likely means, or None."""
    *section, leaf = path
    names = list(_field_names(Config))
    in_section = [name for name in names if name.rpartition(".")[0] == ".".join(section)]
    # First the named section, then all: the same last name, a short form, a misspelling. Then any misspelt full name.
    for pool in (in_section, names):
        leaves: dict[str, str] = {}
        for name in sorted(pool, key=lambda name: not name.startswith("training.")):  # people mostly mean these
            leaves.setdefault(name.rpartition(".")[2], name)
        if leaf in leaves:
            return leaves[leaf]
        short_for = [name for name in leaves if _is_short_for(leaf, name)]
        close = short_for or difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.6)
        if close:
            return leaves[min(close, key=len)]
    misspelt = difflib.get_close_matches(".".join(path), names, n=1, cutoff=0.75)
    return misspelt[0] if misspelt else None


def _is_short_for(short: str, name: str) -> bool:
    """Return whether `short` stands for a name, as lr for learning_rate or epochs for max_epochs.

    It does if it is the name's initials or beginning, or if one of the two has all words of the other.
    """
    words = name.split("_")
    given = short.split("_")
    has_all_words = set(given) <= set(words) or set(words) <= set(given)
    return len(short) > 1 and (short in ("".join(word[0] for word in words), name[: len(short)]) or has_all_words)


def _field_names(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, info in section.model_fields.items():
        yield prefix + name
        if (inner := section_of(info)) is not None:
            yield from _field_names(inner, f"{prefix}{name}.")


_KNOBS = dict(all_knobs(Config))

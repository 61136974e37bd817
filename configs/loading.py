"""Read a config file, apply `--set section.field=value`, and explain what is wrong with either."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import InputError
from configs.schema import Config

# What pydantic says of its types, in words for who wrote the config.
_MESSAGES = {
    "model_type": "is a section of knobs, such as 'model: {dim: 64}'; see configs/schema.py",
    "string_type": "must be text; quote it, as in '\"2024\"'",
    "invalid_key": "names of knobs are text; see configs/schema.py",
}
# A value is shown, but not pages of it (an alias in YAML can stand for any amount).
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxdict, _SHOWN.maxlist, _SHOWN.maxstring, _SHOWN.maxother = 2, 8, 8, 120, 120


def load_config(path: str | None, overrides: Iterable[str] = ()) -> Config:
    """The validated config of a YAML file (or the defaults) with `section.field=value` overrides.

    Raises:
        InputError: unreadable file, malformed YAML, unknown key (names the nearest), or a bad value.
    """
    tree = read_yaml(path) if path else {}
    source = path or "the defaults"
    for override in overrides:
        _override(tree, override)
    return parse_config(tree, source)


def override_config(config: Config, overrides: Iterable[str], allowed: tuple[str, ...]) -> Config:
    """A loaded config with overrides in the named sections only (what a trained run may still change).

    Raises:
        InputError: as `load_config`, or an override of anything else.
    """
    tree = config.model_dump(mode="json")
    for override in overrides:
        section = override.partition("=")[0].partition(".")[0].strip()
        if section not in allowed:
            raise InputError(f"--set {override}: fixed by the run; only {', '.join(allowed)} can be set here")
        _override(tree, override)
    return parse_config(tree, "of the run")


def parse_config(tree: dict[str, Any], source: str) -> Config:
    """Validate a plain dict (a file's content, or a config that crossed a process) as a `Config`.

    Raises:
        InputError: with one line per problem: the field, the value and what is allowed.
    """
    try:
        return Config.model_validate(tree).with_ablation()
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise InputError(f"config ({source}): {problems}") from None


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML mapping from a local file, read with the safe loader."""
    try:
        tree = _parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"config {path}: cannot be read ({error.strerror}); name an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {path}: not valid YAML: {' '.join(str(error).split())}; correct the file") from None
    except RecursionError:
        raise InputError(f"config {path}: nested too deeply; sections are two or three levels deep") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(
            f"config {path}: holds a {type(tree).__name__}, expected sections such as 'model: {{dim: 64}}'"
        )
    return tree


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every knob spelled out; `load_config` reads it back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


class _OneOfEachKey(yaml.SafeLoader):
    """The safe loader, which would let a later key win over an earlier one of the same name without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        if len(names) > len(set(names)):
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_OneOfEachKey)  # noqa: S506 (a safe loader: it makes plain values only)


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise InputError(f"--set {override}: expected section.field=value, as in --set model.dim=64")
    _assign(tree, key.strip(), _parse_scalar(override, value))


def _parse_scalar(override: str, text: str) -> Any:
    try:
        return _parse_yaml(text)
    except (yaml.YAMLError, RecursionError):
        raise InputError(f"--set {override}: the value is not valid YAML; quote it if it is text") from None


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise InputError(f"--set {dotted}: {section} is a value, not a section; see configs/schema.py")
    node[leaf] = value


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        nearest = _nearest(path)
        hint = f"; did you mean {nearest}?" if nearest else "; see configs/schema.py for the knobs"
        return f"unknown key {name}{hint}"
    message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return message  # of several knobs at once, which it names
    return f"{name.removesuffix('.[key]')}={_SHOWN.repr(problem['input'])}: {message}" if name else message


def _nearest(path: list[str]) -> str | None:
    names = list(_field_names(Config))
    wanted = ".".join(path)
    # A misspelt leaf in the right section first, then the same leaf anywhere, then anything close.
    same_section = [n for n in names if n.rpartition(".")[0] == wanted.rpartition(".")[0]]
    for pool in (same_section, [n for n in names if n.rpartition(".")[2] == path[-1]], names):
        close = difflib.get_close_matches(wanted, pool, n=1, cutoff=0.5)
        if close:
            return close[0]
    return None


def _field_names(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, info in section.model_fields.items():
        yield prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _field_names(info.annotation, f"{prefix}{name}.")

"""YAML as plain values, with numbers and truth written in one way only.

PyYAML follows YAML 1.1, in which `010` is 8, `1:30` is 90, `yes` is true and `2024-01-01` is a date. Here, as in
YAML 1.2, numbers are in base ten, truth is `true` or `false`, nothing is `null` or `~`, and all else is text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import InputError


class PlainLoader(yaml.SafeLoader):
    """The safe loader with the rules above, which refuses a key that is there twice (PyYAML takes the later one)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way to say it; filled below)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        if len(names) > len(set(names)):
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


# Longer ones stay text: Python refuses to read whole numbers of more than 4,300 digits.
_WHOLE = re.compile(r"[-+]?[0-9]{1,100}")
_DECIMAL = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]{1,100}(\.[0-9]*)?)([eE][-+]?[0-9]{1,9})?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_RULES = (
    ("null", re.compile("null|Null|NULL|~|"), ("n", "N", "~", "")),
    ("bool", re.compile("|".join(_TRUTH)), "tTfF"),
    ("int", _WHOLE, "-+0123456789"),
    ("float", _DECIMAL, "-+.0123456789"),
    ("merge", re.compile("<<"), "<"),
)
for _tag, _pattern, _first in _RULES:
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})$"), list(_first))


def _number(read: type[int] | type[float], pattern: re.Pattern[str]) -> Any:
    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        text = str(loader.construct_scalar(node))
        if not pattern.fullmatch(text):
            raise yaml.constructor.ConstructorError(None, None, f"{text!r:.80} is no number", node.start_mark)
        return read(text.replace(".", "", 1) if text.lstrip("-+")[1:].isalpha() else text)

    return construct


def _truth(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if text not in _TRUTH:
        raise yaml.constructor.ConstructorError(None, None, f"{text!r:.80} is not true or false", node.start_mark)
    return _TRUTH[text]


PlainLoader.add_constructor("tag:yaml.org,2002:int", _number(int, _WHOLE))
PlainLoader.add_constructor("tag:yaml.org,2002:float", _number(float, _DECIMAL))
PlainLoader.add_constructor("tag:yaml.org,2002:bool", _truth)


class PlainDumper(yaml.SafeDumper):
    """Writes what `PlainLoader` reads back equal."""

    yaml_implicit_resolvers = yaml.SafeDumper.yaml_implicit_resolvers | {
        first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, []) + rules
        for first, rules in PlainLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, or RecursionError where it is nested too deeply."""
    return yaml.load(text, Loader=PlainLoader)  # noqa: S506 (a safe loader: it makes plain values only)


def dump_yaml(tree: Any) -> str:
    """Plain values as YAML that `parse_yaml`, and any other reader of YAML, reads back equal."""
    return yaml.dump(tree, Dumper=PlainDumper, sort_keys=False)


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML mapping from a local file.

    Raises:
        InputError: it cannot be read, is not YAML, or holds no mapping.
    """
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"))
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

"""Reading and writing YAML by the rules of YAML 1.2 for numbers, true and false, and null.

PyYAML follows YAML 1.1, in which `010` is 8, `1:30` is 90, `yes` is true and `2024-01-01` is a date. Here numbers are
in base ten, booleans are `true` or `false`, an absent value is `null` or `~`, and everything else is text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import InputError


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules above. It refuses a repeated key, of which PyYAML takes the later one."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML reads this class attribute; filled below)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        if len(names) > len(set(names)):
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


# Longer numbers stay text: Python refuses to parse integers of more than 4,300 digits.
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
            raise yaml.constructor.ConstructorError(None, None, f"{text!r:.80} is not a number", node.start_mark)
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
    """PyYAML's safe dumper, which quotes text that `PlainLoader` or a reader of YAML 1.1 would not read as text."""

    yaml_implicit_resolvers = yaml.SafeDumper.yaml_implicit_resolvers | {
        first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, []) + rules
        for first, rules in PlainLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises yaml.YAMLError, or RecursionError if it is nested too deeply."""
    return yaml.load(text, Loader=PlainLoader)  # noqa: S506 (a safe loader: it makes plain values only)


def dump_yaml(tree: Any) -> str:
    """Return plain values as YAML, from which `parse_yaml` and any other reader of YAML get equal values."""
    return yaml.dump(tree, Dumper=PlainDumper, sort_keys=False)


def read_yaml(path: str) -> dict[str, Any]:
    """Return the mapping in a local YAML file; an empty file gives an empty dict.

    Raises:
        InputError: the file cannot be read, is not valid YAML, or holds something else than a mapping.
    """
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"config {path}: cannot be read ({error.strerror}); name an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {path}: not valid YAML: {' '.join(str(error).split())}; correct the file") from None
    except RecursionError:
        raise InputError(f"config {path}: is nested too deeply; sections are two or three levels deep") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(
            f"config {path}: contains a {type(tree).__name__}, expected sections such as 'model: {{dim: 64}}'"
        )
    return tree

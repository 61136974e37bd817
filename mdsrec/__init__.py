"""What a program needs of MDSRec under one name, and the `mdsrec` command (command.py). Nothing is defined here.

A name is imported when it is first used, so `import mdsrec` takes milliseconds and starts neither PyTorch nor Ray.
May import everything. In the wheel all packages of the product lie inside this one (wheel_build/).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.loading import dump_config, load_config
    from configs.schema import Config
    from configs.systems.registry import SYSTEMS
    from contracts.errors import InputError
    from data.dataset import Dataset
    from graph_builder.store import Graph

__all__ = ["SYSTEMS", "Config", "Dataset", "Graph", "InputError", "__version__", "dump_config", "load_config"]

__version__ = "0.2.0"

# Where each name is defined: the same as above, for whoever runs the code.
_HOMES = {
    "SYSTEMS": "configs.systems.registry",
    "Config": "configs.schema",
    "Dataset": "data.dataset",
    "Graph": "graph_builder.store",
    "InputError": "contracts.errors",
    "dump_config": "configs.loading",
    "load_config": "configs.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The public names of MDSRec, imported from the packages that define them, and the `mdsrec` command.

A name is imported when it is first used, so `import mdsrec` takes milliseconds and loads neither PyTorch nor Ray. This
package may import every other one. Begin with command.py. In the wheel, all other packages lie inside this one
(wheel_build/).
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
    from graph_builder.graph import Graph
    from mdsrec.calls import build_graph, evaluate, inspect_data, prepare_data, train
    from serving.loading import load
    from serving.predictor import Predictor
    from serving.results import Recommendations

__all__ = [
    "SYSTEMS", "Config", "Dataset", "Graph", "InputError", "Predictor", "Recommendations", "__version__",
    "build_graph", "dump_config", "evaluate", "inspect_data", "load", "load_config", "prepare_data", "train",
]  # fmt: skip

__version__ = "0.2.0"

# The module that defines each name. The imports above say the same to type checkers.
_HOMES = {
    "SYSTEMS": "configs.systems.registry",
    "Config": "configs.schema",
    "Dataset": "data.dataset",
    "Graph": "graph_builder.graph",
    "InputError": "contracts.errors",
    "Predictor": "serving.predictor",
    "Recommendations": "serving.results",
    "build_graph": "mdsrec.calls",
    "dump_config": "configs.loading",
    "evaluate": "mdsrec.calls",
    "inspect_data": "mdsrec.calls",
    "load": "serving.loading",
    "load_config": "configs.loading",
    "prepare_data": "mdsrec.calls",
    "train": "mdsrec.calls",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

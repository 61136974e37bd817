"""Runs jobs as on a machine with few packages: `python -m tests.bare_environment train --set ... + evaluate --run ...`

Training, ranking and graph building in one process need PyTorch, NumPy, SciPy, Numba, PyArrow, pydantic, click, PyYAML,
safetensors and tqdm, and on a GPU also CuPy and Triton. Every other installed package is hidden here, among them Ray,
TorchRec and FBGEMM.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, requires
from typing import Any

PACKAGES = (
    "torch", "numpy", "scipy", "numba", "pyarrow", "pydantic", "click", "PyYAML", "safetensors", "tqdm",
    "cupy-cuda13x", "triton",
)  # fmt: skip


def with_requirements(names: Sequence[str]) -> set[str]:
    """Return the names of packages and of all that they require, normalised; packages that are absent have none."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = _normalised(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            required = requires(name) or []
        except PackageNotFoundError:
            continue
        waiting += [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in required if "extra ==" not in one]
    return found


def hidden_modules() -> set[str]:
    """Return the names of the top-level modules of all packages that are hidden."""
    kept = with_requirements(PACKAGES)
    own = {"mdsrec"}
    modules: dict[bool, set[str]] = {True: set(), False: set()}
    for package in distributions():
        name = _normalised(package.metadata["Name"])
        if name not in own:
            tops = {file.parts[0] for file in package.files or () if file.suffix in (".py", ".so", ".pth")}
            modules[name in kept] |= {top.split(".")[0] for top in tops if not top.endswith((".pth", ".dist-info"))}
    return modules[False] - modules[True]


class _WithoutHidden:
    """One of Python's finders of modules, for which hidden modules do not exist."""

    def __init__(self, finder: Any, hidden: set[str]) -> None:
        self._finder, self._hidden = finder, hidden

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        return None if fullname in self._hidden else self._finder.find_spec(fullname, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide() -> None:
    """Hide the packages from this process."""
    # coverage measures this process too, if it measures the tests.
    hidden = hidden_modules() - {"coverage", "_distutils_hack"}
    early = hidden & set(sys.modules)
    assert not early, f"imported before they were hidden: {early}"
    sys.meta_path[:] = [_WithoutHidden(finder, hidden) for finder in sys.meta_path]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(commands: Sequence[str]) -> None:
    """Run jobs, one after the other; a "+" stands between two commands."""
    hide()
    while commands:
        end = commands.index("+") if "+" in commands else len(commands)
        job, *arguments = commands[:end]
        import_module(f"jobs.{job}").main(arguments, standalone_mode=False)
        commands = commands[end + 1 :]


if __name__ == "__main__":
    _run(sys.argv[1:])

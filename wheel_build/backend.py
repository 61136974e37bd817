"""The build backend that pip calls (PEP 517): setuptools, except that a wheel has all packages inside `mdsrec`.

In a checkout and in an editable installation, packages such as `data`, `model` and `distributed` are top-level. In
site-packages these names would clash with other products (PyPI's `distributed` is Dask's) and with people's own
folders. So `build_wheel` copies the packages to a temporary folder, as `mdsrec/data` and so on, changes their imports
(first_party.py), and lets setuptools build the wheel from that folder. All other functions are setuptools' own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
)

from wheel_build.first_party import HOME, Packages, relocated

# Without `prepare_metadata_for_build_wheel`, pip reads the metadata in the wheel, which lists only `mdsrec`.
__all__ = [
    "build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable", "get_requires_for_build_sdist",
    "get_requires_for_build_wheel", "prepare_metadata_for_build_editable",
]  # fmt: skip

_SUFFIXES = (".py", ".cu", ".yaml")  # of the files in a package; package-data in pyproject.toml must list the same
_FILES = ("py.typed",)


def get_requires_for_build_wheel(config_settings: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG001
    """Return no further requirements. Setuptools' own function would write to the checkout first."""
    return []


def build_wheel(
    wheel_directory: str, config_settings: Mapping[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel of the checkout in the current folder, and return its file name.

    Raises:
        UnknownReference: a module refers to another in a way that the build does not support.
        ValueError: a package holds a file that is neither source nor known package data.
    """
    target = str(Path(wheel_directory).absolute())
    with tempfile.TemporaryDirectory() as folder:
        stage(Path.cwd(), Path(folder))
        with _working_in(folder):
            name: str = build_meta.build_wheel(target, config_settings, metadata_directory)
            return name


def stage(checkout: Path, folder: Path) -> None:
    """Copy a checkout to a folder as the wheel needs it: every package inside `mdsrec`, with changed imports.

    Raises:
        UnknownReference: a module refers to another in a way that the build does not support.
        ValueError: a package holds a file that is neither source nor known package data, or two files get one name.
    """
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    included = [name.removesuffix("*") for name in settings["tool"]["setuptools"]["packages"]["find"]["include"]]
    packages = Packages(checkout, tuple(name for name in included if name != HOME))
    for file in ("pyproject.toml", settings["project"]["readme"]):
        shutil.copy(checkout / file, folder / file)
    for package in included:
        below = folder / HOME if package == HOME else folder / HOME / package
        for file in _files(checkout / package):
            target = below / file.relative_to(checkout / package)
            if target.exists():
                raise ValueError(f"{file}: its place in the wheel is taken by another file; rename one of them")
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".py":
                source = file.read_text(encoding="utf-8")
                target.write_text(relocated(source, str(file.relative_to(checkout)), packages), encoding="utf-8")
            else:
                shutil.copy(file, target)


def _files(package: Path) -> Iterator[Path]:
    """Yield the files of a package.

    Raises:
        ValueError: a file is of another kind, so the wheel would silently lack it.
    """
    for path in sorted(package.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts or path.name.startswith("."):
            continue
        if path.suffix not in _SUFFIXES and path.name not in _FILES:
            raise ValueError(
                f"{path}: is neither source nor known package data ({', '.join(_SUFFIXES)}); add its suffix to "
                "wheel_build/backend.py and to package-data in pyproject.toml"
            )
        yield path


@contextmanager
def _working_in(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)

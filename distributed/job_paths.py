"""Paths that a command names, made absolute before any other process reads them."""

from __future__ import annotations

import os

from configs.schema import Config
from contracts.errors import InputError
from distributed.placement import is_submitted_job
from storage.paths import expand_home
from storage.uris import check_uri, is_uri


def resolve_paths(config: Config) -> Config:
    """The config with absolute dataset, graph and run paths (URIs stay as they are).

    Raises:
        InputError: a URI that is not accepted (`storage.object_folder.check_uri`).
        InputError: a relative path under `ray job submit`, whose working dir is an unpacked copy that
            is deleted with the job: a relative output would vanish, a relative input is not there.
    """
    return config.model_copy(
        update={name: absolute(name, getattr(config, name)) for name in ("dataset", "graph", "run")}
    )


def absolute(name: str, path: str | None) -> str | None:
    """One path made absolute; see `resolve_paths`."""
    if path is not None and is_uri(path):
        check_uri(path)
        return path
    path = None if path is None else expand_home(path)
    if path is None or os.path.isabs(path):
        return path
    if is_submitted_job():
        raise InputError(
            f"{name}={path}: a relative path under `ray job submit` lies in the job's temporary working dir and "
            "vanishes with it; give an absolute path on storage that every node sees"
        )
    return os.path.abspath(path)


def absolute_file(flag: str, path: str) -> str:
    """One file that is read or written in place, made absolute.

    Raises:
        InputError: a URI, which only datasets, graphs and runs may be; or see `resolve_paths`.
    """
    if is_uri(path):
        raise InputError(f"--{flag}: a URI where a file is needed; name a path, and copy the file from or to the URI")
    target = absolute(flag, path)
    assert target is not None
    return target

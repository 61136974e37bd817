"""Makes the paths of a command absolute before they are sent to other processes."""

from __future__ import annotations

import os
from functools import partial

from configs.places import Places, changed
from configs.schema import Config
from contracts.errors import InputError
from distributed.run_location import is_submitted_job
from storage.paths import expand_home
from storage.uris import check_uri, is_uri


def resolve_paths(config: Config) -> Config:
    """Return the config with absolute paths of dataset, graph, run and the run to start from.

    A slash at the end of a path or URI is removed, because the last part of a dataset's path is its name.

    Raises:
        InputError: a URI that is not accepted (`storage.uris.check_uri`).
        InputError: a relative path under `ray job submit`. The working dir of such a job is a temporary copy, which
            does not hold the job's inputs and is deleted with its outputs when the job ends.
    """
    paths: dict[str, Places] = {"run": absolute("run", config.run)}
    for name, places in (("dataset", config.dataset), ("graph", config.graph)):
        paths[name] = changed(places, partial(_absolute, name))
    start_from = absolute("training.start_from", config.training.start_from)
    training = config.training.model_copy(update={"start_from": start_from})
    return config.model_copy(update={**paths, "training": training})


def absolute(name: str, path: str | None) -> str | None:
    """Return one path made absolute; see `resolve_paths`. `name` is its setting, for messages."""
    return None if path is None else _absolute(name, path)


def _absolute(name: str, path: str) -> str:
    if is_uri(path):
        scheme, bucket, key = check_uri(path)
        return f"{scheme}://{bucket}/{key}"
    path = expand_home(path)
    if not os.path.isabs(path) and is_submitted_job():
        raise InputError(
            f"{name}={path}: a relative path under `ray job submit` lies in the job's temporary working dir and "
            "vanishes with it; give an absolute path on storage that every node sees"
        )
    return os.path.abspath(path)


def absolute_file(flag: str, path: str) -> str:
    """Return the absolute path of a file that a command-line flag names.

    Raises:
        InputError: a URI (only datasets, graphs and runs may be at a URI), or see `resolve_paths`.
    """
    if is_uri(path):
        raise InputError(f"--{flag}: a URI where a file is needed; name a path, and copy the file from or to the URI")
    target = absolute(flag, path)
    assert target is not None
    return target

"""Makes the processes that Ray starts find this project's code, from a checkout or an installed wheel.

In a checkout the packages are at the top level (`distributed`). In the wheel they are inside one package
(`mdsrec.distributed`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import distributed

_IS_INSTALLED = "." in distributed.__name__
# The folder that holds the packages: the checkout, or `mdsrec` in site-packages.
_FOLDER = Path(distributed.__file__ or "").resolve().parent.parent
# These are not uploaded to a cluster. `.rayignore` has the same list for `ray job submit --working-dir`.
_NOT_CODE = [".git", ".venv", "demo", "runs", "tests", "docs", "site", "**/__pycache__"]


def found_on_this_machine() -> dict[str, Any]:
    """Return a runtime environment for a cluster on this machine.

    A checkout is put on the workers' path. An installed wheel needs nothing, because workers get the driver's path
    from Ray.
    """
    if _IS_INSTALLED:
        return {}
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [str(_FOLDER), os.environ.get("PYTHONPATH")]))}}


def sent_to_the_cluster() -> dict[str, Any]:
    """Return a runtime environment that uploads the code, for a cluster that this process joins from outside."""
    if _IS_INSTALLED:
        return {"py_modules": [str(_FOLDER)], "excludes": ["**/__pycache__"]}
    return {"working_dir": str(_FOLDER), "excludes": _NOT_CODE}

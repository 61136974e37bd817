"""How processes that Ray starts find this code: that of a checkout, or that of an installed wheel.

In a checkout the packages are at the top, as `distributed`; in the wheel they lie below one, as `mdsrec.distributed`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import distributed

_IS_INSTALLED = "." in distributed.__name__
# The folder that holds the packages: the checkout, or `mdsrec` in site-packages.
_FOLDER = Path(distributed.__file__ or "").resolve().parent.parent
# Never sent to a cluster as code; .rayignore says the same to `ray job submit --working-dir`.
_NOT_CODE = [".git", ".venv", "demo", "runs", "tests", "docs", "**/__pycache__"]


def found_on_this_machine() -> dict[str, Any]:
    """A runtime environment for a cluster on this machine.

    A checkout is put on the path of its workers. A wheel is found where this process found it: Ray passes on the path
    of its driver.
    """
    if _IS_INSTALLED:
        return {}
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [str(_FOLDER), os.environ.get("PYTHONPATH")]))}}


def sent_to_the_cluster() -> dict[str, Any]:
    """A runtime environment for a cluster that this process joins from outside: the code is uploaded."""
    if _IS_INSTALLED:
        return {"py_modules": [str(_FOLDER)], "excludes": ["**/__pycache__"]}
    return {"working_dir": str(_FOLDER), "excludes": _NOT_CODE}

"""Uses /tmp for temporary files if the path of the configured folder is too long for sockets in it."""

from __future__ import annotations

import os
import tempfile

import click

from contracts.errors import InputError

_LIMIT = 107  # bytes of a Unix socket's path: sockaddr_un.sun_path has 108, of which the last is 0
# The longest name that Ray appends. A loader's process appends less (pymp-12345678/listener-12345678).
_LONGEST_NAME = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/dash_MetricsHead"
LONGEST_FOLDER = _LIMIT - len(_LONGEST_NAME)
_SHORT = "/tmp"


def keep_sockets_short() -> None:
    """Make this process and its child processes use /tmp if the folder of the environment has too long a path.

    Raises:
        InputError: the path is too long, and /tmp cannot be written.
    """
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(variable, "")
    if len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return
    reason = f"{variable}={folder}: at most {LONGEST_FOLDER} bytes leave room for the names of sockets"
    if not os.access(_SHORT, os.W_OK | os.X_OK):
        raise InputError(f"{reason}, and {_SHORT} cannot be written; set {variable} to a shorter folder")
    click.echo(f"note: {reason}; temporary files go to {_SHORT}", err=True)
    os.environ[variable] = _SHORT
    tempfile.tempdir = None  # drop the cached folder, so that tempfile reads TMPDIR again

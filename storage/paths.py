"""Expand `~` in a path that a user gave, so that all libraries read the path in the same way."""

from __future__ import annotations

import os


def expand_home(path: str) -> str:
    """Replace a leading `~` or `~user` by that user's home folder, as a shell does. Return other paths unchanged.

    pathlib reads `~` as a file name, but pyarrow reads it as the home folder. So paths are expanded once, where they
    enter the program. For a file whose name begins with `~`, write `./~name`.
    """
    expanded = os.path.expanduser(path)
    # pathlib drops './' from './~name', and pyarrow would then read '~name' as a home folder.
    return os.path.abspath(expanded) if os.path.normpath(expanded or ".").startswith("~") else expanded

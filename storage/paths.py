"""How a path that a person wrote becomes one that every library reads alike."""

from __future__ import annotations

import os


def expand_home(path: str) -> str:
    """The path with a leading `~` or `~user` replaced by that home folder, as a shell does; other paths as they are.

    pathlib takes `~` for a name, and pyarrow for the home folder; so this is done once, where a path comes in. A name
    that does begin with `~` is written `./~name`.
    """
    expanded = os.path.expanduser(path)
    # pathlib drops the './', and pyarrow would take what is left for a home folder.
    return os.path.abspath(expanded) if os.path.normpath(expanded or ".").startswith("~") else expanded

"""Choose a folder where Numba can store compiled kernels.

`numba.njit(cache=True)` raises an error if Numba finds no folder that it can write to.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"


def choose_numba_cache() -> None:
    """Set NUMBA_CACHE_DIR if it is unset and neither of Numba's own choices is writable.

    Numba's own choices are a folder in this checkout and one in the home folder. Call this before Numba is imported:
    Numba reads the variable once, at import.
    """
    if _VARIABLE in os.environ:
        return
    beside = Path(__file__).parent / "__pycache__"
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba"
    except RuntimeError:  # this user has no home folder
        home = beside
    if not (_is_writable(beside) or _is_writable(home)):
        os.environ[_VARIABLE] = str(_private_folder(Path(tempfile.gettempdir()) / f"mdsrec-numba-{os.getuid()}"))


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private_folder(path: Path) -> Path:
    """Return `path` if only this user can write to it, else a new folder: Numba executes the files in its cache."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077:
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="mdsrec-numba-"))

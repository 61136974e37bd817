"""Whether somebody watches a job on a terminal, so that a progress bar makes sense."""

from __future__ import annotations

import os
import sys


def shows_bars() -> bool:
    """Whether standard error is a terminal that can redraw a line.

    It is not where an automatic build (`CI`) keeps a copy of it, or where it is said to have no columns.
    """
    if os.environ.get("CI", "").lower() not in ("", "0", "false") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False

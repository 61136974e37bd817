"""Decides whether a job shows progress bars."""

from __future__ import annotations

import os
import sys


def shows_bars() -> bool:
    """Return whether standard error is a terminal that can redraw a line.

    Returns False too if the environment variable CI is set, or if the terminal is dumb or has no columns.
    """
    if os.environ.get("CI", "").lower() not in ("", "0", "false") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False

"""Whether somebody watches a job on a terminal, so that a progress bar makes sense."""

from __future__ import annotations

import os
import sys


def shows_bars() -> bool:
    """Whether standard error is a terminal that can redraw a line, and no automatic build (`CI`) keeps a copy of it."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr.isatty()

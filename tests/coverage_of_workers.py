"""A plugin of coverage.py that keeps what Ray's workers have run: it saves their records every second.

Ray ends its workers by SIGKILL, and coverage.py saves when a process ends by itself. What a worker ran in its last
second can be missing.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from coverage import Coverage

SECONDS = 1.0


def coverage_init(registry: Any, options: dict[str, Any]) -> None:  # noqa: ARG001
    """Called by coverage.py when it begins to measure a process."""
    if any(word.endswith("default_worker.py") for word in sys.orig_argv):
        threading.Thread(target=_save, daemon=True).start()


def _save() -> None:
    while True:
        time.sleep(SECONDS)
        if (measuring := Coverage.current()) is not None:
            measuring.save()

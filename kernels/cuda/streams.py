"""Two CUDA streams, so that one tile is scanned while the next is multiplied.

There are two buffers of the same size and two streams:

    | stream   | tile t          | tile t + 1        | waits for                           |
    | products | buffer t mod 2  | buffer t+1 mod 2  | the lists stage of tile t - 2       |
    | lists    | scan, compact   | scan, compact     | the product of the same tile        |

All work on lists is on one stream, in order, so no list is compacted while a scan appends to it.
"""

from __future__ import annotations

import contextlib
from typing import Any


class Overlap:
    """The two streams, and one event per buffer and direction."""

    def __init__(self, xp: Any) -> None:
        self._cuda = xp.cuda
        self._product_stream, self.list_stream = (xp.cuda.Stream(non_blocking=True) for _ in range(2))
        self._in_use: set[int] = set()
        self._written, self._read = ([xp.cuda.Event(disable_timing=True) for _ in range(2)] for _ in range(2))

    @contextlib.contextmanager
    def product(self, place: int) -> Any:
        if place in self._in_use:
            self._product_stream.wait_event(self._read[place])
        with self._product_stream:
            yield
        self._written[place].record(self._product_stream)

    @contextlib.contextmanager
    def lists(self, place: int) -> Any:
        self.list_stream.wait_event(self._written[place])
        with self.list_stream:
            yield
        self._read[place].record(self.list_stream)
        self._in_use.add(place)

    @contextlib.contextmanager
    def joined(self) -> Any:
        """Order the two streams with the caller's: work queued earlier runs before them, work queued later after."""
        caller = self._cuda.get_current_stream()
        before = caller.record()
        for stream in (self._product_stream, self.list_stream):
            stream.wait_event(before)
        yield
        caller.wait_event(self.list_stream.record())

"""A disk that forgets, at a loss of power, what was not flushed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Disk:
    """What would be found after a loss of power: file contents and folder entries as of their last fsync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, handle: int) -> None:
        self._fsync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_dir():
            self._names[path.stat().st_ino] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self._contents[path.stat().st_ino] = path.read_bytes()

    def names(self, folder: Path) -> dict[str, int]:
        """The entries of a folder and their inodes."""
        return self._names.get(folder.stat().st_ino, {})

    def read(self, path: Path) -> bytes:
        """The content of a file, b"" where its bytes or its name would be lost."""
        return self._contents.get(self.names(path.parent).get(path.name, -1), b"")

    def holds(self, path: Path) -> bool:
        """Whether the bytes of a file would be kept, under whatever name."""
        return self._contents.get(path.stat().st_ino) == path.read_bytes()

"""A disk that knows what it would still hold after a loss of power."""

import os
from pathlib import Path


class Disk:
    """What would be found after a loss of power: file contents and folder entries as of their last fsync."""

    def __init__(self, monkeypatch):
        self._contents, self._names = {}, {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, handle):
        self._fsync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_dir():
            self._names[path] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self._contents[path.stat().st_ino] = path.read_bytes()

    def names(self, folder):
        """The entries of a folder and their inodes."""
        return self._names.get(folder, {})

    def read(self, path):
        """The content of a file, b"" where its bytes or its name would be lost."""
        return self._contents.get(self.names(path.parent).get(path.name), b"")

"""Damage of inputs: each function returns a function that damages something in the folder with the inputs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse

Damage = Callable[[Path], None]


def both(*damages: Damage) -> Damage:
    def spoil(here: Path) -> None:
        for damage in damages:
            damage(here)

    return spoil


def write(name: str, content: str | bytes) -> Damage:
    def spoil(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def replace(name: str, old: str, new: str, count: int = 1) -> Damage:
    def spoil(here: Path) -> None:
        text = (here / name).read_text()
        assert old in text, (name, old)
        (here / name).write_text(text.replace(old, new, count))

    return spoil


def cut(name: str, left: float) -> Damage:
    """Keep only this share of the bytes."""

    def spoil(here: Path) -> None:
        os.truncate(here / name, int((here / name).stat().st_size * left))

    return spoil


def flip(name: str, place: float) -> Damage:
    """Flip one bit at this share of the file's length."""

    def spoil(here: Path) -> None:
        content = bytearray((here / name).read_bytes())
        content[int(len(content) * place)] ^= 1
        (here / name).write_bytes(content)

    return spoil


def remove(name: str) -> Damage:
    def spoil(here: Path) -> None:
        path = here / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def folder(name: str) -> Damage:
    """Put a folder in place of the file."""

    def spoil(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        (here / name).mkdir(parents=True)

    return spoil


def copy(name: str, over: str) -> Damage:
    def spoil(here: Path) -> None:
        shutil.copy(here / name, here / over)

    return spoil


def move(name: str, to: str) -> Damage:
    def spoil(here: Path) -> None:
        (here / name).rename(here / to)

    return spoil


def link(name: str, to: str) -> Damage:
    """Put a symbolic link in place of the file."""

    def spoil(here: Path) -> None:
        if (here / name).exists():
            remove(name)(here)
        (here / name).symlink_to(here / to)

    return spoil


def json_field(name: str, *keys: str, value: Any) -> Damage:
    """Set a field of a JSON file, named by its path of keys."""

    def spoil(here: Path) -> None:
        tree = json.loads((here / name).read_text())
        node = tree
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
        (here / name).write_text(json.dumps(tree))

    return spoil


def array(name: str, change: Callable[[np.ndarray], Any]) -> Damage:
    """Change the array of a `.npy` file in place, or replace it by the array that `change` returns."""

    def spoil(here: Path) -> None:
        values = np.load(here / name) if (here / name).exists() else np.empty(0)
        changed = change(values)
        np.save(here / name, values if changed is None else changed, allow_pickle=True)

    return spoil


def put(name: str, index: Any, value: Any) -> Damage:
    def change(values: np.ndarray) -> None:
        values[index] = value

    return array(name, change)


def table(name: str, **columns: Any) -> Damage:
    """Write a Parquet file with these columns."""

    def spoil(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), here / name)

    return spoil


def matrix(name: str) -> Damage:
    """Write a matrix as jobs/export.py does."""
    return lambda here: scipy.sparse.save_npz(here / name, scipy.sparse.eye(3, format="csr"), compressed=False)


def archive(name: str) -> Damage:
    """Write a `.npz` archive under this name."""

    def spoil(here: Path) -> None:
        with (here / name).open("wb") as file:
            np.savez(file, np.ones((30, 6), np.float32))

    return spoil


def damaged_page(name: str) -> Damage:
    """Write a Parquet file with page checksums, and flip one bit of a page."""

    def spoil(here: Path) -> None:
        pq.write_table(pq.read_table(here / name), here / name, write_page_checksum=True, compression="none")
        flip(name, 0.2)(here)

    return spoil

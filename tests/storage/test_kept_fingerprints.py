"""Fingerprints and checksums of files that exist must stay what they are: the values below are of version 78c30dc."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.layout import fingerprint_files
from graph_builder.build_inputs import ArraySource
from graph_builder.graph import graph_fingerprint
from graph_builder.integrity import checksum

MANIFEST = {
    "num_items": 3,
    "cooccurrence": {"block_rows": 2},
    "modalities": {"text": {"num_centers": 1}, "image": {"num_centers": 2}},
    "checksum": "is not part of itself",
}


def write(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * (5 * number))  # the first one is empty


def test_a_datasets_fingerprint(tmp_path: Path) -> None:
    names = ["sequences.arrow", "items.parquet", "users.parquet", "features/image.npy", "features/text.npy"]
    write(tmp_path, [*names, "manifest.json", "anything else"])
    found = fingerprint_files(tmp_path, ["text", "image"])
    assert found == "ef0360f6b8da5bce8b1bd4711d5c58efb623b2405ec14322ba2537dc9bb3d7d2"


def test_a_graphs_checksum_and_fingerprint(tmp_path: Path) -> None:
    blocks = [f"cooccurrence/block-{b:05d}.{part}.npy" for b in (0, 1) for part in ("indptr", "indices", "weights")]
    of_items = [
        f"{folder}/{modality}{part}.npy"
        for modality in ("image", "text")
        for folder, part in (("neighbors", ""), ("neighbors", ".scores"), ("clusters", ""), ("clusters", ".centers"))
    ]
    write(tmp_path, [*blocks, *of_items, "manifest.json"])
    assert checksum(tmp_path, MANIFEST) == "197d38e816f02fc354eba0019c2548f3d9a0a19693e2f8778bfaa821501214cb"
    assert (
        graph_fingerprint("abc", {"num_neighbors": 4, "mu": 0.5, "window": None}, 7)
        == "b2e5ce522564108b7b578ca4bf9f0182221d2bfe75fd77c5812cdaef1f422d2e"
    )


def test_the_fingerprint_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    source = ArraySource(features={"items": tmp_path / "items.npy"})
    assert source.fingerprint == "df27f5db270ba7411cb4d4b824eea8f39e88d24b0cf5773a1f1131323cfbba94"

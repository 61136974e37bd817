"""Find the items that have features, and inject co-occurrence into features: mu * O E + E (MDSRec Eq. 3).

An item whose raw row is all zero is missing in that modality, even if its injected row is not zero.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts.errors import InputError
from graph_builder.executor import Executor
from graph_builder.row_blocks import CooccurrenceRows
from graph_builder.work_folder import WorkFolder, num_row_blocks, row_range, save_block
from kernels.backend import Backend, array_module
from kernels.cosine.cosine_topk import square_norms
from kernels.spmm import injected_rows
from storage.array_file import map_array

# Values converted to float64 at a time, so that they stay in cache.
_VALUES_AT_A_TIME = 1 << 15


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One modality's files, and the parameters that its tasks need."""

    modality: str
    features: Path
    work: WorkFolder
    num_items: int
    block_rows: int
    backend: Backend

    @property
    def present(self) -> Path:
        """File of bool [N]: whether the raw row is not all zero."""
        return self.work.path / "features" / f"{self.modality}.present.npy"

    @property
    def injected(self) -> Path:
        """File of float32 [N, d]: mu * O E + E."""
        return self.work.path / "features" / f"{self.modality}.injected.npy"

    @property
    def squares(self) -> Path:
        """File of float64 [N]: squared norms of the injected rows, 0 where the item is missing."""
        return self.work.path / "features" / f"{self.modality}.squares.npy"


@dataclass(frozen=True)
class RawRows:
    """The results of one pass over a modality's raw features.

    Attributes:
        present: bool [N], whether the row is not all zero.
        mean_cosine: the mean cosine over all pairs of two present items; None if fewer than two are present.
    """

    present: np.ndarray
    mean_cosine: float | None


def find_rows(modality: str, features: Path, num_items: int, block_rows: int, executor: Executor) -> RawRows:
    """Read every raw value once: find the present items and the mean cosine.

    The sum of <u_i, u_j> over pairs i != j of n unit rows is |sum_i u_i|^2 - n. So the mean cosine needs only the sum
    of the unit rows, which is one float64 vector per block.

    Raises:
        InputError: a raw row holds NaN or infinity.
    """
    blocks = [row_range(index, block_rows, num_items) for index in range(num_row_blocks(block_rows, num_items))]
    function = functools.partial(_look_at_block, features)
    results = list(executor.run_blocks(function, blocks, label=f"reading {modality}"))
    present = np.concatenate([rows for rows, _ in results])
    total = np.sum([unit_sum for _, unit_sum in results], axis=0)
    n = int(present.sum())
    return RawRows(present, float((total @ total - n) / (n * (n - 1))) if n > 1 else None)


def inject(spec: FeatureSpec, cooccurrence_block_rows: int, mu: float, executor: Executor) -> None:
    """Write the injected rows to `spec.injected` and their squared norms to `spec.squares`.

    Raises:
        InputError: the sum of an item's features is too large for float32.
    """
    stage = f"inject-{spec.modality}"
    function = functools.partial(_inject_block, spec, stage, cooccurrence_block_rows, mu)
    targets = {"injected": spec.injected, "squares": spec.squares}
    spec.work.run_row_stage(stage, function, spec.block_rows, spec.num_items, targets, executor, on_gpu=True)


def _look_at_block(path: Path, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are present, bool [n], and the sum of their unit rows, float64 [d]."""
    features = np.asarray(map_array(path)[rows])
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        row = rows.start + int(finite.argmin())
        raise InputError(
            f"{path}: row {row} (the item's id) holds NaN or infinity; encode that item again, "
            "or give it an all-zero row to mark the modality as missing"
        )
    present = (features != 0).any(axis=1)
    unit_sum = np.zeros(features.shape[1])
    step = max(1, _VALUES_AT_A_TIME // max(1, features.shape[1]))
    for start in range(0, len(features), step):
        chunk = features[start : start + step].astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        unit_sum += np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0) @ chunk
    return present, unit_sum


def _inject_block(spec: FeatureSpec, stage: str, cooccurrence_block_rows: int, mu: float, index: int) -> None:
    rows = row_range(index, spec.block_rows, spec.num_items)
    features = map_array(spec.features)
    cooccurrence = CooccurrenceRows(spec.work.graph / "cooccurrence", cooccurrence_block_rows, spec.num_items)
    csr = cooccurrence.rows(np.arange(rows.start, rows.stop))
    injected = injected_rows(*csr, features, rows, mu, array_module(spec.backend))
    try:
        squares = square_norms(injected)
    except InputError as error:
        raise InputError(
            f"{spec.features}: injecting neighbours' features (graph_options.mu={mu}) overflows float32 in rows "
            f"{rows.start} to {rows.stop - 1} ({error}); scale the features or lower mu"
        ) from None
    squares[~map_array(spec.present)[rows]] = 0
    save_block(spec.work.block_path(stage, index), injected=injected, squares=squares)

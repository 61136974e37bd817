"""Compares systems with a baseline, paired by user and seed, and corrects the p-values for their number."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import InputError
from evaluation.paired import Difference, PairedChunk, compare, holm, pair_users
from evaluation.saved_ranks import ALL_RANKS, ChosenRanks, SavedRanks, open_ranks


@dataclass(frozen=True, kw_only=True)
class System:
    """The trainings of a system: for each seed, the ranks of all targets. One system has at least one seed."""

    name: str
    by_seed: Mapping[int, SavedRanks]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A system compared with the baseline in one metric.

    Attributes:
        system: the system's name.
        seeds: the seeds over which the two were compared.
        difference: the difference, its interval and its p-value.
        corrected_p: the p-value, corrected for the number of systems that are compared with the same baseline.
    """

    system: str
    seeds: tuple[int, ...]
    difference: Difference
    corrected_p: float


def shared_seeds(baseline: System, other: System) -> dict[int, tuple[SavedRanks, SavedRanks]]:
    """Return the pairs of trainings to compare, by seed. Two single trainings are a pair even if their seeds differ."""
    if len(baseline.by_seed) == len(other.by_seed) == 1:
        ((_, one),), ((seed, two),) = baseline.by_seed.items(), other.by_seed.items()
        return {seed: (one, two)}
    return {seed: (baseline.by_seed[seed], ranks) for seed, ranks in other.by_seed.items() if seed in baseline.by_seed}


def compare_pair(
    baseline: System, other: System, metrics: Sequence[str], chosen: ChosenRanks = ALL_RANKS
) -> tuple[Difference, ...]:
    """Return the difference of a system from the baseline in each metric, over the seeds that both have.

    Results are kept for the life of the process, because a study reports after each of its trials.

    Args:
        baseline: the system to compare with.
        other: the system that is compared.
        metrics: names such as "ndcg@10".
        chosen: which targets count, and which of their ranks. Every file has these columns.

    Raises:
        InputError: a file cannot be read, two files have different targets, or no target is chosen.
    """
    pairs = shared_seeds(baseline, other)
    assert pairs, "the systems have no seed in common"
    one, two = (tuple(_state(pair[side].path) for pair in pairs.values()) for side in (0, 1))
    return _compared(one, two, tuple(metrics), chosen)


def corrected(
    found: Mapping[str, tuple[tuple[int, ...], tuple[Difference, ...]]], num_metrics: int
) -> list[Comparison]:
    """Return the comparisons of all systems, system by system, with Holm's correction within each metric.

    Args:
        found: for each system its seeds and its difference in each metric.
        num_metrics: number of metrics.
    """
    p_values = [holm([differences[m].p for _, differences in found.values()]) for m in range(num_metrics)]
    return [
        Comparison(system=name, seeds=seeds, difference=differences[m], corrected_p=p_values[m][number])
        for number, (name, (seeds, differences)) in enumerate(found.items())
        for m in range(num_metrics)
    ]


_NOTHING: tuple[None, None] = (None, None)
_FileState = tuple[Path, int, int]


def _state(path: Path) -> _FileState:
    """Return what tells one content of a file from a later one."""
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=4096)
def _compared(
    baseline: tuple[_FileState, ...], other: tuple[_FileState, ...], metrics: tuple[str, ...], chosen: ChosenRanks
) -> tuple[Difference, ...]:
    one, two = ([open_ranks(path) for path, _, _ in side] for side in (baseline, other))
    return tuple(compare(pair_users(_paired_chunks(one, two, chosen), metrics)))


def _paired_chunks(
    baseline: Sequence[SavedRanks], other: Sequence[SavedRanks], chosen: ChosenRanks
) -> Iterator[PairedChunk]:
    """Read the files of all trainings side by side.

    Raises:
        InputError: a file cannot be read, has no (chosen) targets, or has other targets than the first.
    """
    files = [*baseline, *other]
    for file in files:
        if file.num_targets != files[0].num_targets or not file.num_targets:
            raise InputError(
                f"{file.path}: has {file.num_targets} targets, {files[0].path} has {files[0].num_targets}; compare "
                "runs whose datasets have the same targets, and at least one"
            )
    last_user: pa.Scalar | None = None
    for parts in zip_longest(*(file.chunks(chosen) for file in files), fillvalue=_NOTHING):
        targets = parts[0][0]
        for file, (found, _) in zip(files, parts, strict=True):
            if found is None or targets is None or not found.equals(targets):
                raise InputError(
                    f"{file.path}: its targets are not those of {files[0].path}; evaluate both runs again on the same "
                    "dataset with jobs/evaluate.py"
                )
        users = targets["user"].combine_chunks()
        begins = np.ones(len(users), dtype=bool)
        begins[1:] = pc.not_equal(users[1:], users[:-1]).to_numpy(zero_copy_only=False)
        begins[0] = last_user is None or users[0] != last_user
        last_user = users[-1]
        ranks = np.stack([found for _, found in parts])
        yield PairedChunk(begins_user=begins, baseline=ranks[: len(baseline)], other=ranks[len(baseline) :])
    if last_user is None:
        raise InputError(f"{files[0].path}: has no target of the group {chosen.group!r}; name another one")

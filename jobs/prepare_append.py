"""The option `--append` of `jobs/prepare_data.py`: growing a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import click
import numpy as np

from contracts.errors import InputError
from data.dataset import Dataset
from data.encoding.encoders import TFIDF
from data.layout import HELD_BACK
from data.prepare.growth.growth import Growth, open_growth
from data.prepare.growth.inherited import inherited
from data.prepare.growth.moved import moved_targets
from data.prepare.growth.not_given import naming_origin
from data.prepare.pipeline import ALLOWED, WITHOUT_ENGINE
from jobs.cli import HomePath

Command = TypeVar("Command", bound=Callable[..., None])


def append_option(function: Command) -> Command:
    """Add `--append`."""
    return click.option(
        "--append",
        type=HomePath(),
        metavar="OLD",
        help="raw interactions: a dataset, folder or URI, to which they are added. Its users and items keep their "
        "numbers, and its options hold unless they are given anew. It is only read",
    )(function)


def grown(
    old: str, output: str, kind: str, path: str | Sequence[str] | None, options: Mapping[str, Any]
) -> tuple[Growth, dict[str, Any], AbstractContextManager[None]]:
    """Open OLD, and return the options for growing it, after printing which of them are OLD's.

    The third result is for the block that uses the options: errors about OLD's options then say that they are OLD's.

    Raises:
        InputError: the format is not one of raw interactions, or OLD cannot be grown (`open_growth`, `inherited`).
    """
    paths = [path] if isinstance(path, str) else [*(path or ())]
    if kind in WITHOUT_ENGINE:
        raise InputError(
            f"--append {old}: --format {kind} is not one of raw interactions; "
            f"use {', '.join(name for name in ALLOWED if name not in WITHOUT_ENGINE)}"
        )
    if "cold_item_share" in options:
        raise InputError(
            f"--append {old}: does not go with --cold-item-share, which may drop users whose numbers must stay; "
            "prepare all rows at once"
        )
    if not paths:
        raise InputError(f"--append {old}: needs --input with the new interactions")
    growth = open_growth(old, output)
    found = inherited(growth.old, kind, paths, options, ALLOWED[kind])
    for line in found.lines(old):
        print(line, flush=True)
    if growth.old.manifest.get("source", {}).get("hold_back") and not (growth.old.folder / HELD_BACK).exists():
        print(f"{old} has lost its {HELD_BACK}: the rows in it are left out", flush=True)
    return growth, found.options, naming_origin(old, found.taken)


def print_growth(old: str, dataset: Dataset) -> None:
    """Print what is new in a grown dataset, and how many users of OLD have other targets."""
    before = Dataset.open(old)
    users, items = (getattr(dataset, name) - getattr(before, name) for name in ("num_users", "num_items"))
    counts = f"{before.num_interactions:,} interactions became {dataset.num_interactions:,}"
    print(f"users and items of {old} keep their numbers; new users: {users:,}, new items: {items:,}; {counts}")
    moved = moved_targets(before, dataset)
    print(
        f"of its {moved.num_users:,} users, {moved.valid:,} have other validation targets now, and {moved.test:,} "
        "other test targets; docs/data.md says what that means for comparisons"
    )
    for modality in before.modalities:
        lacking = ~dataset.presence(modality)
        lacking[: before.num_items] = False
        if lacking.any():
            print(f"new items without {modality}: {np.count_nonzero(lacking):,}; {_way(dataset, modality, lacking)}")


def _way(dataset: Dataset, modality: str, lacking: np.ndarray) -> str:
    """Return how items that lack a modality, bool [N], get it: their texts are encoded, or a file has their vectors."""
    encoder, texts = dataset.manifest["modalities"][modality].get("encoder") or {}, dataset.item_texts()
    # Images are not in the dataset, and TF-IDF would learn from other texts than those of OLD.
    if texts is not None and encoder.get("modality") == "text" and encoder.get("name") != TFIDF:
        has_text = texts.is_valid().to_numpy(zero_copy_only=False) & lacking
        if num := np.count_nonzero(has_text):
            command = f"encode_items.py --dataset {dataset.path} --only-missing {modality}"
            return f"{num:,} of them have a text, which {command} encodes"
    return f"they stay without it unless --features {modality}=FILE has their vectors"

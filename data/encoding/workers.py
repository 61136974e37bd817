"""Where parts are encoded, and what a worker does, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data.encoding.encoders import open_encoder
from data.encoding.part_work import Work, encode_part
from data.encoding.parts import Part
from data.encoding.request import Encoder
from data.encoding.tfidf import PartCounts, count_part


@dataclass(frozen=True, kw_only=True)
class Places:
    """The workers of a job.

    Attributes:
        most_workers: most workers at a time.
        cpus: cores that each reserves.
        gpus: GPUs that each reserves; less than 1: several share one.
        device: "cpu" or "cuda".
    """

    most_workers: int = 1
    cpus: float = 1
    gpus: float = 0
    device: str = "cpu"

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))


def opened(work: Work, device: str) -> Encoder:
    """Load the encoder of a worker.

    Raises:
        InputError: it cannot be loaded, or is another than the job began with.
    """
    encoder = open_encoder(work.spec, device, Path(work.image_folder) if work.image_folder else None)
    work.check(encoder)
    return encoder


def encode_here(encoder: Encoder, work: Work, parts: Sequence[Part], places: Places) -> Iterator[None]:
    """Encode the parts in this process, one after the other; yield after each."""
    before = torch.get_num_threads()
    torch.set_num_threads(places.threads)
    try:
        for part in parts:
            encode_part(encoder, work, part)
            yield
    finally:
        torch.set_num_threads(before)


def count_texts(folder: Path, part: Part, sampled: list[int]) -> PartCounts:
    """Count the words of a part; `sampled` are the rows whose first text is returned for the SVD."""
    texts: list[str] = []
    places: list[int] = []
    chosen = set(sampled)
    for row, found in part.values(folder):
        if row in chosen:
            places.append(len(texts))
        texts += [str(text or "") for text in found]
    return count_part(texts, places)

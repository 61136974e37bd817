"""Encodes parts on a Ray cluster, with Ray Data: actors hold the encoder. Every node must see the same folders."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from contracts.errors import InputError
from data.encoding.part_work import Work, encode_part
from data.encoding.parts import Part
from data.encoding.tfidf import PartCounts
from data.encoding.workers import Places, count_texts, opened


def encode_on_ray(work: Work, parts: Sequence[Part], places: Places) -> Iterator[None]:
    """Encode the parts; yield after each. A part of an actor that is lost is encoded again by another.

    Raises:
        InputError: what a worker raised.
    """
    data = _parts_of(parts).map_batches(
        _Encoding,
        fn_constructor_kwargs={"work": work, "device": places.device, "threads": places.threads},
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(places.most_workers, len(parts))),
        num_cpus=places.cpus,
        num_gpus=places.gpus,
    )
    for row in data.iter_rows():
        if row["error"]:
            raise InputError(row["error"])
        yield


def count_on_ray(work_folder: Path, parts: Sequence[tuple[Part, list[int]]], places: Places) -> Iterator[PartCounts]:
    """Count the words of the parts, in their order; see `tfidf.count_part`."""
    count = ray.remote(num_cpus=places.cpus)(count_texts)
    waiting: list[Any] = []
    for part, sampled in parts:
        waiting.append(count.remote(work_folder, part, sampled))
        if len(waiting) > 4 * places.most_workers:  # so that few results wait in memory
            yield ray.get(waiting.pop(0))
    for reference in waiting:
        yield ray.get(reference)


def _parts_of(parts: Sequence[Part]) -> Any:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"part": json.dumps(asdict(part))} for part in parts]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


class _Encoding:
    """An actor of Ray Data that has loaded the encoder."""

    def __init__(self, work: Work, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._work, self._encoder, self._error = work, None, ""
        try:
            self._encoder = opened(work, device)
        except InputError as error:  # Ray would wrap it in a traceback
            self._error = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        part = Part(**json.loads(str(batch["part"][0])))
        error = self._error
        if self._encoder is not None:
            try:
                encode_part(self._encoder, self._work, part)
            except InputError as refused:
                error = str(refused)
        return {"error": [error]}

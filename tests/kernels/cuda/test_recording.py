"""CUDA graphs are recorded only where a recorded product can be launched and is right."""

from __future__ import annotations

import contextlib
import logging
from typing import ClassVar

import numpy as np
import pytest

from kernels.cuda import recording
from tests.kernels.cuda.conftest import Recorder, multiply


class Stream(contextlib.nullcontext):
    events: ClassVar[list[str]] = []

    def __init__(self, **_):
        super().__init__()

    def begin_capture(self):
        self.events.append("begin")

    def end_capture(self):
        self.events.append("end")
        return "graph"


def broken(*_):
    raise OSError("libcublas.so.13: cannot open shared object file")


@pytest.mark.parametrize(
    ("product", "record", "reason"),
    [
        (multiply, Recorder.record, ""),
        (broken, Recorder.record, "OSError: libcublas.so.13: cannot open"),
        (multiply, broken, "OSError: libcublas.so.13: cannot open"),
        (lambda *_: None, Recorder.record, "the recorded product is wrong"),
    ],
)
def test_it_is_tried_first(monkeypatch, caplog, product, record, reason):
    recorder = Recorder()
    monkeypatch.setattr(recording, "multiply_fp16", recorder.recordable(product))
    monkeypatch.setattr(recording, "recorded_graph", lambda xp, work: record(recorder, xp, work))
    recording.can_record.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert recording.can_record(np) is not bool(reason)
        recording.can_record(np)
    recording.can_record.cache_clear()
    assert len(caplog.records) == bool(reason)
    assert reason in caplog.text


def test_a_product_can_be_recorded_on_a_gpu(xp):
    if xp is np:
        pytest.skip("needs a GPU")
    assert recording.can_record(xp)


def test_a_recording_ends_also_after_an_error(monkeypatch):
    monkeypatch.setattr(np, "cuda", type("cuda", (), {"Stream": Stream}), raising=False)
    Stream.events.clear()
    assert recording.recorded_graph(np, lambda: Stream.events.append("work")) == "graph"
    with pytest.raises(OSError, match="libcublas"):
        recording.recorded_graph(np, broken)
    assert Stream.events == ["begin", "work", "end", "begin", "end"]

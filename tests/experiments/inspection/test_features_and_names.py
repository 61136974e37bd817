"""Facts about features, ids and texts equal those that plain NumPy and Python count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from experiments.inspection import feature_pass, name_pass
from experiments.inspection.feature_pass import feature_facts
from experiments.inspection.name_pass import item_names
from tests.experiments.inspection.planted import NUM_ITEMS, WIDTH, healthy_parts, written


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_features(tmp_path, monkeypatch, dtype, rows):
    monkeypatch.setattr(feature_pass, "block_length", lambda _: rows)
    features = healthy_parts()["features"].astype(dtype)
    features[[3, 8]], features[11], features[20], features[:, 5] = 0, features[10], 2, 2
    features[[3, 8]] = 0
    data = written(tmp_path / "dataset", healthy_parts() | {"features": features})
    found = feature_facts(data, "image")
    real = np.delete(features.astype(np.float64), [3, 8], axis=0)
    norms = np.sort(np.linalg.norm(real, axis=1))
    scaled = real / np.linalg.norm(real, axis=1, keepdims=True)
    cosines = sorted(float(a @ b) for a, b in itertools.combinations(scaled, 2))
    assert (found.width, found.dtype, found.num_present) == (WIDTH, dtype.__name__, NUM_ITEMS - 2)
    assert (found.num_constant_rows, found.num_constant_columns, found.num_duplicates) == (1, 1, 1)
    assert found.norms.median == pytest.approx(norms[len(norms) // 2 - 1], rel=0.02)
    assert found.norms.mean == pytest.approx(norms.mean())
    assert (found.norms.least, found.norms.most) == pytest.approx((norms[0], norms[-1]))
    assert found.cosines.median == pytest.approx(cosines[(len(cosines) - 1) // 2])
    assert (found.cosines.least, found.cosines.most) == pytest.approx((cosines[0], cosines[-1]))


def test_the_sample_of_features_is_fixed_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_pass, "SAMPLE", 10)
    data = written(tmp_path / "dataset", healthy_parts())
    first = feature_facts(data, "image")
    assert first.num_sampled == 10
    assert feature_facts(data, "image") == first
    assert feature_facts(data, "image", seed=1) != first


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_names(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(name_pass, "_BATCH", batch)
    parts = healthy_parts()
    parts["item_ids"][:8] = ["1.0", "2.", "3e5", "-4.5E+3", " a", "b\t", "12", "v1.0"]
    parts["texts"][:8] = [None, "", "x<y and z>w", "<br/>", "salt & pepper", "&#39;", "é" * 9, "AT&T;"]
    data = written(tmp_path / "dataset", parts)
    found = item_names(data, [3, 6, 0])
    assert (found.ids.num_like_floats, found.ids.like_float) == (4, "1.0")
    assert (found.ids.num_spaced, found.ids.spaced) == (2, " a")
    assert found.id_of == {0: "1.0", 3: "-4.5E+3", 6: "12"}
    assert found.text_of == {3: "<br/>", 6: "é" * 9}
    real = [text for text in parts["texts"] if text]
    assert (found.texts.num_texts, found.texts.num_sampled, found.texts.num_distinct) == (48, 48, 48)
    assert found.texts.num_markup == 2
    assert found.texts.lengths.mean == pytest.approx(np.mean([len(text) for text in real]))
    assert (found.texts.lengths.least, found.texts.lengths.most) == (5, max(map(len, real)))


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_sample_of_texts_has_every_so_many_th(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(name_pass, "_BATCH", batch)
    monkeypatch.setattr(name_pass, "SAMPLE", 20)
    parts = healthy_parts()
    parts["texts"] = [f"text {item % 6}" for item in range(NUM_ITEMS)]
    texts = item_names(written(tmp_path / "dataset", parts), []).texts
    assert (texts.num_sampled, texts.num_distinct, texts.num_texts) == (17, 2, 50)
    assert (texts.commonest, texts.num_commonest) == ("text 0", 9)

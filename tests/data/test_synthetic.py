"""The synthetic catalogue holds what its spec plants, and is the same for the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import InputError
from data.dataset import Dataset, write_dataset
from data.prepare import planted_items, synthetic
from data.prepare.planted_items import PlantedItems
from data.prepare.synthetic import synthetic_content
from data.prepare.synthetic_spec import SyntheticSpec

SPEC = SyntheticSpec(num_users=1500, num_items=400)


def _write(path: Path, spec: SyntheticSpec) -> Dataset:
    return write_dataset(str(path), synthetic_content(spec))


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, shared_interests=True, modalities=(("image", 8), ("text", 4), ("audio", 3)), dtype="float32"),
        SyntheticSpec(num_users=1, num_items=2, cold_items=0.9),
        SyntheticSpec(num_users=50, num_items=30, min_length=1, mean_length=1, missing=1.0),
    ],
)
def test_it_is_a_valid_dataset_of_the_stated_size(spec: SyntheticSpec, tmp_path: Path) -> None:
    dataset = _write(tmp_path / "d", spec)
    dataset.validate()
    assert (dataset.num_users, dataset.num_items) == (spec.num_users, spec.num_items)
    lengths = np.diff(dataset.offsets)
    assert lengths.min() >= spec.min_length
    assert lengths.max() <= spec.max_length
    for name, width in spec.modalities:
        assert dataset.features(name).shape == (spec.num_items, width)
        assert dataset.features(name).dtype == spec.dtype
    texts = dataset.item_texts()
    assert texts is not None
    assert texts[0].as_py().startswith("image group ")


def test_a_seed_means_one_catalogue(tmp_path: Path) -> None:
    first = _write(tmp_path / "a", SPEC).fingerprint
    assert _write(tmp_path / "b", SPEC).fingerprint == first
    assert _write(tmp_path / "c", replace(SPEC, seed=1)).fingerprint != first


def test_chunks_cover_all_users_and_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_items, "CHUNK", 64)
    monkeypatch.setattr(synthetic, "CHUNK", 64)
    dataset = _write(tmp_path / "d", SPEC)
    dataset.validate()
    assert dataset.num_users == SPEC.num_users
    # Chunks differ: no stream is used twice.
    features = np.asarray(dataset.features("text"))
    assert len(np.unique(features, axis=0)) == SPEC.num_items
    starts = dataset.items[dataset.offsets[:-1]]
    assert not np.array_equal(starts[:64], starts[64:128])


def test_features_are_group_centres_and_some_images_are_missing(tmp_path: Path) -> None:
    dataset, groups = _write(tmp_path / "d", SPEC), PlantedItems(SPEC).groups
    for modality, (name, _) in enumerate(SPEC.modalities):
        present = dataset.presence(name)
        rows = np.asarray(dataset.features(name), np.float32)[present]
        own = groups[modality][present]
        centres = np.stack([rows[own == group].mean(axis=0) for group in range(SPEC.groups)])
        nearest = ((rows[:, None] - centres) ** 2).sum(-1).argmin(1)
        assert (nearest == own).mean() > 0.95
    assert abs(dataset.presence("image").mean() - (1 - SPEC.missing)) < 0.1
    assert dataset.presence("text").all()


def test_interests_differ_by_modality_unless_shared(tmp_path: Path) -> None:
    """A user's items fall into few groups of each modality; image groups tell text groups only if shared."""
    for shared in (False, True):
        spec = replace(SPEC, shared_interests=shared, follow=0.0, recent=0.0, interest=1.0, num_groups=12)
        dataset, groups = _write(tmp_path / f"d{shared}", spec), PlantedItems(spec).groups
        users = np.repeat(np.arange(spec.num_users), np.diff(dataset.offsets))
        top = []
        for modality in range(2):
            counts = np.zeros((spec.num_users, spec.groups))
            np.add.at(counts, (users, groups[modality][dataset.items]), 1)
            share = np.sort(counts, axis=1)[:, -2:].sum(1) / counts.sum(1)
            # Liked groups hold all items if shared, else half of them, plus their part of the other half.
            assert share.mean() > (0.85 if shared else 0.5)
            top.append(counts.argmax(1))
        agreement = (top[0] == top[1]).mean()
        assert agreement == 1 if shared else agreement < 0.3


def test_popularity_has_a_cold_tail_and_order_carries_signal(tmp_path: Path) -> None:
    dataset = _write(tmp_path / "d", SPEC)
    popularity = np.sort(dataset.popularity())
    assert popularity[0] == 0
    assert popularity[-1] > 5 * np.median(popularity)
    # The planted followers of the item before the target hold far more targets than their popularity.
    last, target = dataset.items[dataset.offsets[1:] - 2], dataset.items[dataset.offsets[1:] - 1]
    followers = PlantedItems(SPEC).followers
    hit = (followers[last] == target[:, None]).any(1).mean()
    chance = (followers[last] == np.roll(target, 1)[:, None]).any(1).mean()
    assert hit > SPEC.follow * 0.8
    assert hit > 5 * chance


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_users": 0}, "num_users=0, allowed: at least 1"),
        ({"num_items": 1}, "num_items=1, allowed: at least 2"),
        ({"follow": 0.9}, "follow=0.9, allowed: shares"),
        ({"mean_length": 70.0}, "1 <= min <= mean <= max"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"modalities": (("a/b", 3),)}, "modality name 'a/b'"),
    ],
)
def test_specs_outside_their_range_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        synthetic_content(replace(SPEC, **changed))  # type: ignore[arg-type]

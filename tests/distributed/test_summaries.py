"""Summaries of ranked targets: metrics of all targets and of slices, whose names state their bounds."""

from types import SimpleNamespace

import numpy as np

from configs.loading import load_config
from distributed.inference.ranked_targets import Ranked
from distributed.inference.summaries import summarise
from evaluation.metrics import bootstrap_intervals, ranking_metrics

POPULARITY = np.array([0, 1, 4, 5, 9, 10, 19, 20, 49, 50, 51])
WITH_IMAGE = np.arange(11) < 4


class Catalogue:
    """Eleven items, which are all ranked. The first four have an image, all have a text."""

    modalities = ("image", "text")
    offsets, items = np.array([0, 60]), np.arange(60)  # one user without repeats

    def popularity(self):
        return POPULARITY

    def presence(self, modality):
        return WITH_IMAGE if modality == "image" else np.ones(11, dtype=bool)


def summary(positions, items, seed=0):
    config = load_config(None, ["evaluation.ks=[2,10]", "evaluation.bootstrap_samples=50", f"seed={seed}"])
    ranks = 1 + np.arange(len(items))
    ranked = Ranked(
        users=np.zeros(len(items), np.int64), positions=np.array(positions), items=np.array(items), ranks=ranks
    )
    return summarise(ranked, SimpleNamespace(dataset=Catalogue()), config), ranks


def targets_of(slices, label):
    return {name: found["targets"] for name, found in slices.items() if name.startswith(label)}


def test_slices_by_history_are_of_as_many_items_before_the_target_as_their_names_say():
    # A target at position p has p items before it.
    found, ranks = summary([1, 4, 5, 9, 10, 19, 20, 49, 50, 51], [1] * 10)
    names = ["1-4", "5-9", "10-19", "20-49", "50+"]
    assert targets_of(found["slices"], "history length") == {f"history length {name}": 2 for name in names}
    for number, name in enumerate(names):
        expected = ranking_metrics(ranks[2 * number : 2 * number + 2], (2, 10))
        assert found["slices"][f"history length {name}"] == {"targets": 2, **expected}


def test_slices_by_popularity_and_presence_are_those_of_the_targets():
    found, _ = summary([3] * 11, range(11))
    sizes = {"0": 1, "1-4": 2, "5-9": 2, "10-19": 2, "20-49": 2, "50+": 2}
    assert targets_of(found["slices"], "target popularity") == {f"target popularity {k}": n for k, n in sizes.items()}
    expected = {"target with image": 4, "target without image": 7, "target with text": 11}
    assert targets_of(found["slices"], "target with") == expected
    again, _ = summary([3, 3], [2, 0])
    assert targets_of(again["slices"], "target popularity") == {"target popularity 0": 1, "target popularity 1-4": 1}


def test_metrics_and_intervals_are_of_all_targets_and_the_seed():
    for seed in (0, 1):
        found, ranks = summary([3] * 11, range(11), seed)
        assert found["targets"] == 11
        assert found["metrics"] == ranking_metrics(ranks, (2, 10))
        assert found["intervals"] == bootstrap_intervals(ranks, (2, 10), 50, seed)
    assert found["intervals"] != bootstrap_intervals(ranks, (2, 10), 50, 0)

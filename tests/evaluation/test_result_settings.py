"""What a result says of how it was ranked."""

import pytest

from configs.loading import load_config
from evaluation.result_settings import described, differing_settings, ranking_note, score_settings, settings_suffix


def evaluation(*settings):
    return load_config(None, [f"evaluation.{setting}" for setting in settings]).evaluation


def test_settings_are_those_that_decide_a_metric_and_no_others():
    found = score_settings(evaluation("mask_history=true", "user_batch=7"))
    assert found["mask_history"] is True
    assert found["ks"] == [10, 20, 50]
    assert "user_batch" not in found


def test_other_settings_have_a_name_of_their_own():
    def suffix(*settings):
        return settings_suffix(differing_settings(evaluation(), evaluation(*settings)))

    assert suffix("user_batch=7") == ""
    assert suffix("mask_history=true") == "-mask_history=true"
    assert suffix("ks=[5, 10]", "cooccurrence_weight=1.5") == "-cooccurrence_weight=1.5,ks=5+10"
    many = [suffix(f"ks={list(range(1, count))}") for count in (90, 91)]
    assert len(set(many)) == 2
    assert all(name.startswith("-settings=") and len(name) < 30 for name in many)


@pytest.mark.parametrize(
    ("settings", "share", "expected"),
    [
        (
            (),
            0.006,
            "Ranking: items that the user already has are kept (evaluation.mask_history), a tie counts",
        ),
        ((), 0.006, "already in the user's history: test 0.6%. This is a small share, so items"),
        (("mask_history=true",), 0.006, "Ranking: items that the user already has are hidden"),
        (("mask_history=true",), 0.3, "test 30.0%. This is a large share, and hiding the history makes"),
        (
            ("cooccurrence_weight=16",),
            0.0,
            "co-occurrence added with weight 16 (decay 0.9, all entries of a row) to items that are not in the input",
        ),
        (
            ("cooccurrence_weight=1",),
            0.3,
            "which lowers the rank of these targets; of all systems but ItemKNN, compare with evaluation.cooc",
        ),
    ],
)
def test_a_note_says_history_repeats_and_what_follows(settings, share, expected):
    assert expected in ranking_note(score_settings(evaluation(*settings)), {"valid": None, "test": share})


def test_five_per_cent_of_repeats_are_many():
    assert "This is a large share" in ranking_note(score_settings(evaluation("mask_history=true")), {"test": 0.05})
    assert "With so" not in ranking_note(score_settings(evaluation()), {"test": 0.05})


def test_no_advice_where_the_setting_fits():
    for settings, share in ((("mask_history=true",), 0.01), ((), 0.4)):
        assert ranking_note(score_settings(evaluation(*settings)), {"test": share}).endswith("%.")
    assert "\n" not in ranking_note(score_settings(evaluation()), {"test": None})
    assert described(score_settings(evaluation("cooccurrence_weight=1", "cooccurrence_cap=5"))).endswith(
        "the strongest 5 entries of a row) to items that are not in the input"
    )

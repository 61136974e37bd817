"""Each surprising thing is found where it is planted, and nothing is found in a healthy dataset."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import InputError
from data.prepare.split import global_time
from experiments.inspection.inspect import inspect_dataset
from experiments.inspection.text import text
from tests.experiments.inspection.planted import NUM_ITEMS, START, WIDTH, healthy_parts, written

PLANTS = {}


def planted(said: str):
    """Register a function that changes the parts of a healthy dataset, and what the report must then say."""

    def register(change):
        PLANTS[change.__name__] = (change, said)
        return change

    return register


@planted(r"49 of 80 user ids look like floats, such as '31\.0'.*id '31' would")
def float_ids(parts):
    parts["user_ids"][31:] = [f"{user}.0" for user in range(31, 80)]


@planted(r"1 of 50 item ids have a space at an end, such as 'i7 '")
def spaced_id(parts):
    parts["item_ids"][7] = "i7 "


@planted(r"One user, 'u3', has 5\d(\.\d)?% of all interactions")
def one_user(parts):
    parts["histories"][3] = list(np.random.default_rng(1).permutation(np.resize(np.arange(NUM_ITEMS), 900)))
    parts["times"][3] = list(range(START, START + 900))


@planted(r"One item, 'i9', has 2\d(\.\d)?% of the training interactions")
def one_item(parts):
    parts["histories"] = [[one[0], 9, one[1], 9, *one[2:-1], 9, one[-1]] for one in parts["histories"]]
    parts["times"] = [[time[0] - 2, time[0] - 1, *time, time[-1] + 1] for time in parts["times"]]


@planted(r"In \d\d(\.\d)?% of the interactions a user has the same item as just before")
def in_a_row(parts):
    parts["histories"] = [[*one[:-1], one[-2]] for one in parts["histories"]]
    parts["histories"] = [[one[0], *one[:-1]] for one in parts["histories"]]


@planted(r"57\.5% of the users have fewer than 3 interactions")
def short_histories(parts):
    parts["histories"][:46] = [one[:2] for one in parts["histories"][:46]]
    parts["times"][:46] = [one[:2] for one in parts["times"][:46]]


@planted(r"several units: by their size, \d+ are dates in seconds and \d+ are dates in milliseconds")
def two_units(parts):
    parts["times"][:20] = [[1000 * time for time in one] for one in parts["times"][:20]]


@planted(r"^1 timestamp is not between 1980 and 2100, and \d+ are, in seconds\..*range is 0 to")
def a_zero_time(parts):
    parts["times"][5][0] = 0


@planted(r"^2 timestamps are not between 1980 and 2100, and \d+ are, in milliseconds\.")
def dates_with_a_placeholder(parts):
    parts["times"] = [[1000 * time for time in one] for one in parts["times"]]
    parts["times"][5][0], parts["times"][6][-1] = 0, 253_402_300_799_000  # 1970 and 9999
    parts["source"]["timestamp_unit"] = "ms"


@planted(r"All timestamps are equal: 2020-09-13")
def all_times_equal(parts):
    parts["times"] = [[START] * len(one) for one in parts["times"]]


@planted(r"\d\d(\.\d)?% of a user's consecutive interactions have equal timestamps")
def equal_times(parts):
    parts["times"] = [sorted([*one[::2], *one[::2]])[: len(one)] for one in parts["times"]]


@planted(r"30% of the users with several interactions have all of them at one time")
def at_once(parts):
    parts["times"][:24] = [[one[0]] * len(one) for one in parts["times"][:24]]


@planted(
    r"There is no validation or test target\. Training cannot .*, and no result .*; leave-one-out needs users with 3 "
)
def no_test(parts):
    parts["histories"] = [one[:2] for one in parts["histories"]]
    parts["times"] = [one[:2] for one in parts["times"]]


@planted(r"100% of the test targets are items without a training interaction")
def cold_targets(parts):
    parts["histories"] = [[*(item % 40 for item in one[:-2]), one[-2], 40 + one[-1] % 10] for one in parts["histories"]]
    parts["histories"] = [[*one[:-2], one[-2] % 40, one[-1]] for one in parts["histories"]]


@planted(r"The k-core dropped 8\d(\.\d)?% of the interactions and 97(\.\d)?% of the users; 80 users are left")
def large_drop(parts):
    parts["dropped"] |= {"k_core_interactions": 4000, "k_core_users": 2600}


@planted(r"\d\d(\.\d)?% of the rows had an empty user, item or timestamp")
def many_nulls(parts):
    parts["dropped"] |= {"rows_with_null": 5000}


@planted(r"\d\d(\.\d)?% of the rows were repeated")
def many_duplicates(parts):
    parts["dropped"] |= {"duplicates": 5000}


@planted(r"--max-history cut many users: \d\d(\.\d)?% have exactly 8 interactions, and 200 older ones were dropped")
def cut_histories(parts):
    parts["histories"], parts["times"] = [one[-8:] for one in parts["histories"]], [one[-8:] for one in parts["times"]]
    parts["dropped"] |= {"truncated_interactions": 200}


@planted(r"All items are almost equally popular: the Gini coefficient is 0\.0")
def flat_popularity(parts):
    parts["histories"] = [[(10 * user + place) % NUM_ITEMS for place in range(12)] for user in range(80)]
    parts["times"] = [[START + 999 * user + 9999 * place for place in range(12)] for user in range(80)]


@planted(r"The most popular 1% of the items have (9\d(\.\d)?)% of the training interactions")
def steep_popularity(parts):
    random = np.random.default_rng(0)
    parts["item_ids"], parts["texts"] = [f"i{item}" for item in range(2000)], None
    parts["features"] = None
    parts["histories"] = [[random.integers(20, 2000), *random.permutation(20)[:12]] for _ in range(80)]
    parts["times"] = [[START + 999 * user + 9999 * place for place in range(13)] for user in range(80)]


@planted(r"All image features are zero")
def zero_features(parts):
    parts["features"][:] = 0


@planted(r"60% of the items have no image features")
def missing_features(parts):
    parts["features"][:30] = 0


@planted(r"In 4 of 50 rows of the image features all values are equal")
def constant_rows(parts):
    parts["features"][:4] = np.array([[1], [2], [-3], [0.5]])


@planted(r"Of 50 rows of the image features, 24 are equal to another one")
def equal_rows(parts):
    parts["features"][:25] = parts["features"][0]


@planted(r"The image features are almost all alike: three quarters of the pairs of items have a cosine of 0\.99\d? or")
def alike_features(parts):
    parts["features"][:] = 0.1 * parts["features"] + np.arange(WIDTH)


@planted(r"The norms of the image features differ widely: a quarter is at most .*one in a hundred is \d\d+ or more")
def different_norms(parts):
    parts["features"][:5] *= 100


@planted(r"All texts are empty")
def empty_texts(parts):
    parts["texts"] = [None, ""] * 25


@planted(r"80% of the items have no text")
def few_texts(parts):
    parts["texts"][:40] = [None] * 40


@planted(r"60% of the texts are the same: 'no title'")
def equal_texts(parts):
    parts["texts"][:30] = ["no title"] * 30


@planted(r"20% of the texts hold HTML")
def markup_in_texts(parts):
    parts["texts"][:10] = [f"a <b>bold</b> thing &amp; more {item}" for item in range(10)]


@planted(
    r"^1 timestamp is 1990-01-01 \(631152000\), 30(\.\d)? years before all other dates\..*they come first in a history"
)
def an_early_time(parts):
    parts["times"][5][0] = 631_152_000


def sentences(folder: Path, parts) -> list[str]:
    return [f"{one.what} {one.next_move}" for one in inspect_dataset(written(folder, parts)).surprises]


def test_nothing_surprises_in_a_healthy_dataset(tmp_path):
    for seed in range(3):
        assert sentences(tmp_path / str(seed), healthy_parts(seed)) == []


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_found(tmp_path, name):
    change, said = PLANTS[name]
    parts = healthy_parts()
    change(parts)
    found = sentences(tmp_path / "dataset", parts)
    assert [one for one in found if re.search(said, one)], found
    # One thing may show in two ways, but a planted thing surprises in little else.
    assert len(found) <= 3


@pytest.mark.parametrize("percent", [1, 5, 10, 20, 40, 60])
@pytest.mark.parametrize(
    ("unit", "placeholder", "said"),
    [
        ("s", 0, "not between 1980 and 2100"),
        ("ms", 0, "not between 1980 and 2100"),
        ("s", 253_402_300_799, "not between 1980 and 2100"),  # 9999-12-31
        ("ms", 253_402_300_799_000, "not between 1980 and 2100"),
        ("s", 2**31 - 1, r"2038-01-19 \(2147483647\), 1[56](\.\d+)? years after all other dates"),
        ("ms", 1000 * (2**31 - 1), r"2038-01-19 \(2147483647000\), 1[56](\.\d+)? years after all other dates"),
    ],
)
def test_placeholders_are_found_at_any_share(tmp_path, percent, unit, placeholder, said):
    random = np.random.default_rng(percent)
    times = random.integers(1_577_836_800, 1_640_995_200, 600) * (1 if unit == "s" else 1000)  # of 2020 and 2021
    times[random.permutation(600)[: 6 * percent]] = placeholder
    parts = healthy_parts()
    parts["histories"] = [random.permutation(NUM_ITEMS)[:10].tolist() for _ in range(60)]
    parts["times"] = [sorted(one.tolist()) for one in times.reshape(60, 10)]
    parts["user_ids"] = parts["user_ids"][:60]
    for stated in (None, unit):
        parts["source"]["timestamp_unit"] = stated
        found = sentences(tmp_path / f"{stated}", parts)
        assert [one for one in found if re.search(rf"^{6 * percent} timestamps are .*{said}", one)], found


def test_a_placeholder_is_found_beside_one_of_another_kind_and_dates_of_many_years_are_not(tmp_path):
    parts = healthy_parts()
    years = np.random.default_rng(0).integers(800_000_000, 1_700_000_000, 200)  # 1995 to 2023
    for user in range(80):
        parts["times"][user][:2] = sorted(years[2 * user : 2 * user + 2].tolist())
        parts["times"][user].sort()
    assert not [one for one in sentences(tmp_path / "years", parts) if "all other dates" in one]
    parts["times"][0][0], parts["times"][1][-1] = 0, 2**31 - 1
    found = sentences(tmp_path / "placeholders", parts)
    assert [one for one in found if one.startswith("1 timestamp is 2038-01-19")]
    assert [one for one in found if one.startswith("1 timestamp is not between 1980 and 2100")]


@pytest.mark.parametrize("lacking", ["times", "texts", "features"])
def test_a_dataset_without_a_part_is_inspected(tmp_path, lacking):
    facts = inspect_dataset(written(tmp_path / "dataset", healthy_parts() | {lacking: None}))
    assert (facts.times is None, facts.texts is None, facts.features == ()) == (
        lacking == "times",
        lacking == "texts",
        lacking == "features",
    )
    assert facts.surprises == ()


def test_one_user_with_one_item(tmp_path):
    parts = healthy_parts() | {"histories": [[0]], "times": [[START]], "user_ids": ["u"], "item_ids": ["i"]}
    facts = inspect_dataset(written(tmp_path / "dataset", parts | {"texts": ["t"], "features": np.ones((1, 2), "f4")}))
    assert (facts.num_users, facts.split.test, facts.times.gaps, facts.features[0].cosines) == (1, 0, None, None)
    assert facts.users[0].why == "a typical history: its length is the median"
    assert facts.density == 1


def test_examples_are_the_same_for_any_blocks_and_name_what_they_show(tmp_path):
    data = written(tmp_path / "dataset", healthy_parts())
    facts = inspect_dataset(data)
    assert inspect_dataset(data, block=7) == facts
    lengths, popularity = np.diff(data.offsets), data.popularity()
    longest = facts.users[0]
    assert longest.id == f"u{lengths.argmax()}"
    assert longest.length == lengths.max()
    latest = data.items[: data.offsets[lengths.argmax() + 1]][-8:]
    assert [event.id for event in longest.events] == [f"i{item}" for item in latest]
    assert [event.part for event in longest.events[-3:]] == ["train", "valid", "test"]
    assert [user.length for user in facts.users[1:]] == [facts.history.lengths.median] * 2
    assert facts.items[0].id == f"i{popularity.argmax()}"
    assert facts.items[0].text == f"a thing of kind {popularity.argmax()}"
    assert facts.items[0].num_training == popularity.max()


@pytest.mark.parametrize(
    ("valid_from", "test_from", "empty"),
    [(START, START * 1000, "test"), (START * 1000, START * 1000, "validation or test"), (START, START, "validation")],
)
def test_an_empty_part_of_a_split_by_time_is_told_with_the_range_of_the_times(tmp_path, valid_from, test_from, empty):
    data = written(tmp_path / "dataset", healthy_parts())
    ends = [global_time(data.offsets, data.timestamps, moment, moment)[0] for moment in (valid_from, test_from)]
    data.train_end, data.valid_end = ends
    data.manifest["split"] = {"method": "global-time", "valid_from": valid_from, "test_from": test_from}
    (said,) = [one for one in inspect_dataset(data).surprises if "target" in one.what and "is no" in one.what]
    assert said.what == f"There is no {empty} target."
    first, last = data.timestamps.min(), data.timestamps.max()
    assert f"are {valid_from} and {test_from}, and the timestamps are {first} to {last}; give" in said.next_move
    assert "in the unit of the data" in said.next_move


def test_items_without_any_interaction_are_counted(tmp_path):
    parts = healthy_parts()
    parts["histories"] = [[item % 48 for item in one] for one in parts["histories"]]
    data = written(tmp_path / "dataset", parts)
    for block in (7, 1 << 20):
        facts = inspect_dataset(data, block=block)
        assert facts.num_unused == NUM_ITEMS - len(np.unique(data.items)) == 2
    assert "2 items have no interaction at all" in text(facts)
    assert "no interaction at all" not in text(inspect_dataset(written(tmp_path / "all", healthy_parts())))


def test_no_history_is_called_the_longest_if_many_are_as_long(tmp_path):
    parts = healthy_parts()
    parts["histories"], parts["times"] = [one[:5] for one in parts["histories"]], [one[:5] for one in parts["times"]]
    users = inspect_dataset(written(tmp_path / "dataset", parts)).users
    assert [(user.id, user.why, user.length) for user in users] == [
        (f"u{user}", "a typical history: its length is the median", 5) for user in range(3)
    ]


def test_a_dataset_without_interactions_is_refused(tmp_path):
    parts = healthy_parts() | {"histories": [[]], "times": [[]], "user_ids": ["u"]}
    with pytest.raises(InputError, match="has no interactions"):
        inspect_dataset(written(tmp_path / "dataset", parts))


def test_what_was_left_out_is_told_in_words(tmp_path):
    parts = healthy_parts()
    parts["dropped"] = {"rows_with_null": 0, "k_core_items": 2, "feature_rows_without_item_image": 5, "new_reason": 1}
    parts["source"]["min_item_interactions"] = 7
    facts = inspect_dataset(written(tmp_path / "dataset", parts))
    assert [(one.words, one.count) for one in facts.dropped] == [
        ("items with fewer than 7 interactions (k-core)", 2),
        ("rows in the features image of items that are not in the dataset", 5),
        ("new reason", 1),
    ]


def test_a_stated_unit_and_an_encoder_are_read_and_anything_else_is_not(tmp_path):
    parts = healthy_parts()
    parts["source"]["timestamp_unit"] = "ms"
    data = written(tmp_path / "dataset", parts)
    data.manifest["modalities"]["image"]["encoder"] = {"name": "clip"}
    facts = inspect_dataset(data)
    assert (facts.times.unit, facts.times.is_stated) == ("ms", True)
    assert facts.features[0].encoder == {"name": "clip"}
    data.manifest |= {"source": ["x"], "split": 3, "dropped": {"duplicates": "many"}}
    facts = inspect_dataset(data)
    assert (facts.times.unit, facts.times.is_stated, facts.split.method, facts.dropped) == (
        "s",
        False,
        "not stated",
        (),
    )

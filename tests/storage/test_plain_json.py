"""JSON files are read by every reader of JSON, whatever was measured."""

import json
import math

import pytest

from distributed.telemetry import Telemetry
from distributed.world import world_of_one
from storage.plain_json import json_text


def strict(text):
    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_what_json_has_no_word_for_is_null():
    value = {"loss": math.nan, "bounds": (math.inf, [-math.inf, 1.5]), "n": 3, "text": "NaN", "none": None, "yes": True}
    with pytest.raises(ValueError, match="NaN"):
        strict(json.dumps(value))
    expected = {"loss": None, "bounds": [None, [None, 1.5]], "n": 3, "text": "NaN", "none": None, "yes": True}
    assert strict(json_text(value)) == strict(json_text(value, indent=1)) == expected


def test_an_epoch_without_a_loss_is_a_record_that_any_reader_takes(tmp_path):
    with world_of_one() as world:
        telemetry = Telemetry(run=str(tmp_path), world=world, resumed_step=0, epochs=0)
        telemetry.record(1, epoch=1, loss=math.nan, valid={"ndcg@10": 0.5})
        telemetry.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert strict(line)["loss"] is None

"""Lines of a Ray worker are marked, filtered and shown in the job's output; without Ray."""

import subprocess
import sys
from pathlib import Path

from distributed.ray import relay
from distributed.ray.relay import Relay

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import logging
from distributed import output
output.mark_lines()
output.keep_own_warnings()
print("of a library")
logging.getLogger("torch").warning("of another library")
output.say("a table\\nof two lines")
with output.speaking_as("trial-1"):
    output.say("epoch 1")
logging.getLogger("data.dataset").warning("beware of %s", "dogs")
list(output.distant_bar(range(3), 3, "epoch 1"))
output.end_lines()
"""


def worker_lines():
    done = subprocess.run([sys.executable, "-c", WORKER], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_what_a_worker_says_arrives_and_what_libraries_say_does_not(capsys):
    taken = Relay(verbose=False)
    assert not taken.ended.is_set()
    taken({"lines": worker_lines()})
    said = capsys.readouterr()
    assert said.out == "a table\nof two lines\ntrial-1: epoch 1\n"
    assert said.err == "beware of dogs\n"  # no bar, because pytest's standard error is not a terminal
    assert taken.ended.is_set()


def test_verbose_shows_other_lines_as_ray_does(monkeypatch):
    shown = []
    monkeypatch.setattr(relay.ray_worker, "print_to_stdstream", lambda data, **_: shown.append(data))
    Relay(verbose=True)({"lines": ["mdsrec-line:end ", "foreign"], "pid": 7})
    assert shown == [{"lines": ["foreign"], "pid": 7}]


def test_one_bar_follows_the_states_that_a_worker_sends(monkeypatch):
    drawn = []

    class Bar:
        def __init__(self, *, desc, total, initial, **_):
            self.desc, self.total, self.n = f"{desc}: ", total, initial
            drawn.append(["begin", desc, total, initial])

        def update(self, by):
            self.n += by
            drawn.append(["at", self.n])

        def close(self):
            drawn.append(["end"])

    monkeypatch.setattr(relay, "shows_bars", lambda: True)
    monkeypatch.setattr(relay, "tqdm", Bar)
    taken = Relay(verbose=False)
    states = [("epoch 1", 0, 9), ("epoch 1", 4, 9), ("ranking valid", 1, 3), ("ranking valid", 3, 3)]
    for label, done, total in states:
        taken({"lines": [f'mdsrec-line:bar {{"label": "{label}", "done": {done}, "total": {total}}}']})
    assert drawn == [
        ["begin", "epoch 1", 9, 0], ["at", 0], ["at", 4], ["end"],
        ["begin", "ranking valid", 3, 1], ["at", 1], ["end"],
    ]  # fmt: skip

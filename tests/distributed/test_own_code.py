"""Workers find the code of a checkout; tests/wheel_build/test_wheel.py tests the code of a wheel."""

from distributed.ray.own_code import found_on_this_machine, sent_to_the_cluster
from tests.packages import ROOT


def test_a_checkout_is_put_on_the_path_or_uploaded(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert found_on_this_machine() == {"env_vars": {"PYTHONPATH": f"{ROOT}:/elsewhere"}}
    sent = sent_to_the_cluster()
    assert sent["working_dir"] == str(ROOT)
    assert {".git", ".venv", "tests", "docs"} <= set(sent["excludes"])

"""Words that this project once used in a sense of its own and has replaced by the field's words do not come back."""

import re
import subprocess

import pytest

from tests.packages import ROOT

# What to write instead is in docs/glossary.md.
REPLACED = {
    "piece": "chunk", "pieces": "chunks", "slack": "margin", "sitting": "attempt", "sittings": "attempts",
    "mates": "same_sequence", "wish": "request", "wishes": "requests", "sweep": "pass", "sweeps": "passes",
}  # fmt: skip
# Files that need such a word: names in files that earlier versions wrote, NumPy's own words, and this one.
ALLOWED = ("graph_builder/stages/neighbor_tasks.py", "tests/", "docs/log.md", "docs/bad-input.md", "benchmarks/")


def texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md", "*.yaml", "*.cu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and not name.startswith(ALLOWED)]
    return {name: (ROOT / name).read_text() for name in names if (ROOT / name).exists()}


@pytest.mark.parametrize("word", REPLACED)
def test_a_replaced_word_does_not_come_back(word: str) -> None:
    found = [name for name, text in texts().items() if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
    assert not found, f"write {REPLACED[word]!r} (docs/glossary.md)"


def test_words_that_stay_are_in_the_glossary() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text()
    for word in ("role", "union", "span", "gain", "knob", "channel", "slow twin", "round", "chunk", "threshold"):
        assert re.search(rf"^\*\*[^*]*\b{word}\b[^*]*\*\* ·", glossary, re.MULTILINE), word

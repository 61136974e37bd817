"""List the knobs, the settings of all jobs: python jobs/knobs.py [WORD]"""

from __future__ import annotations

import difflib
import re
import shutil
import textwrap

import click

from configs.descriptions import Description, described_knobs
from configs.loading import nearest_knob
from contracts.errors import InputError
from jobs.cli import job

_MOST_COLUMNS, _FEWEST_COLUMNS = 100, 40


@click.command()
@click.argument("word", required=False)
@job
def main(word: str | None) -> None:
    """List the settings (knobs) that --set and config files may change.

    For each knob: type, default, meaning, and whether the knob may change when a run resumes. With WORD, only knobs
    that have WORD in their name or meaning are listed.
    """
    known = list(described_knobs())
    shown = known if word is None else [knob for knob in known if _has(knob, word)]
    if word is not None and not shown:
        nearest = _nearest(word, known)
        hint = f"did you mean {nearest}?" if nearest else "leave WORD out to see all"
        raise InputError(f"knobs {word}: no knob has this in its name or meaning; {hint}")
    width = max(_FEWEST_COLUMNS, min(_MOST_COLUMNS, shutil.get_terminal_size((_MOST_COLUMNS, 24)).columns))
    click.echo("\n\n".join(_in_words(knob, width) for knob in shown))


def _has(knob: Description, word: str) -> bool:
    wanted = word.lower().strip()
    return wanted.replace("-", "_") in knob.name.lower() or wanted in knob.meaning.lower()


def _nearest(word: str, known: list[Description]) -> str | None:
    """Return the knob, or the word in a meaning, that is spelt most like `word`; None if nothing is close."""
    name = word.strip().replace("-", "_")
    if (knob := nearest_knob(name)) is not None:
        return knob
    words = {found for knob in known for found in re.findall(r"[a-z]{3,}", knob.meaning.lower())}
    close = difflib.get_close_matches(name.lower(), sorted(words), n=1, cutoff=0.7)
    return close[0] if close else None


def _in_words(knob: Description, width: int) -> str:
    """Describe a knob in lines of at most `width` columns, unless its name or default is longer."""
    lines = [f"{knob.name} = {knob.default}"]
    for label, text in (("type", knob.type), ("meaning", knob.meaning), ("on resume", knob.on_resume)):
        first, rest = f"    {label + ':':<11}", " " * 15
        lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return "\n".join(lines)


if __name__ == "__main__":
    main()

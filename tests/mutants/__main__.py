"""python -m tests.mutants: ten mutations a package, and which of them no test notices.

Needs the records of `make coverage`. The exit status is 0 even if mutations survive, because some mutations change
nothing that matters. It is 1 if a test that noticed a mutation also fails without one, and 2 if nothing could be run.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

from tests.mutants.concerned import Recorded
from tests.mutants.operators import Mutation, mutations
from tests.mutants.trial import Copy
from tests.packages import PRODUCT, ROOT

_NEEDS_A_GPU = "kernels/cuda/"


def chosen(package: str, count: int, seed: int, root: Path = ROOT) -> list[tuple[str, Mutation]]:
    """Draw `count` mutations of a package uniformly, as pairs (file, mutation). The same seed draws the same ones."""
    every = [
        (name, mutation)
        for path in sorted((root / package).rglob("*.py"))
        if not (name := path.relative_to(root).as_posix()).startswith(_NEEDS_A_GPU)
        for mutation in mutations(path.read_text())
    ]
    drawn = random.Random(f"{seed}/{package}").sample(every, min(count, len(every)))
    return sorted(drawn, key=lambda one: (one[0], one[1].line, one[1].after))


def describe(file: str, mutation: Mutation) -> str:
    before, after = (" ".join(text.split()) for text in (mutation.before, mutation.after))
    return f"{file}:{mutation.line}: {before[:100]}  ->  {after[:100]}"


@click.command(help=__doc__)
@click.option(
    "--package", "packages", multiple=True, type=click.Choice(PRODUCT), help="mutate only this package; may be repeated"
)
@click.option("--count", default=10, show_default=True, type=click.IntRange(1), help="mutations per package")
@click.option("--seed", default=0, show_default=True, help="chooses the mutations")
@click.option("--seconds", default=240.0, show_default=True, help="time limit of the tests of one mutation")
@click.option(
    "--data", default=str(ROOT / ".coverage"), show_default=".coverage", help="the records of `make coverage`"
)
def main(packages: tuple[str, ...], count: int, seed: int, seconds: float, data: str) -> None:
    if not Path(data).exists() or not (recorded := Recorded(Path(data))).has_tests():
        click.echo(f"error: {data} does not tell which test ran which line; run `make coverage` first", err=True)
        sys.exit(2)
    # Raises SystemExit, so that the blocks below end the tests and delete the copy.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    states: dict[str, Counter[str]] = {package: Counter() for package in packages or PRODUCT}
    listed: list[str] = []
    killers: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder))
        for package, counts in states.items():
            for file, mutation in chosen(package, count, seed):
                outcome = copy.outcome(file, mutation, recorded, seconds)
                line = describe(file, mutation)
                click.echo(f"{outcome.state:9} {line}  {outcome.test}")
                counts[outcome.state] += 1
                if outcome.test:
                    killers.setdefault(outcome.test, []).append(line)
                if outcome.state != "killed":
                    listed.append(f"{outcome.state}: {line}")
        failing = copy.failing(sorted(killers))
    click.echo("\n" + "\n".join([*listed, "", *(_summary(package, counts) for package, counts in states.items())]))
    for test in sorted(failing & killers.keys()):
        click.echo(f"error: {test} fails without a mutation too, so these are not decided: {killers[test]}", err=True)
    sys.exit(1 if failing & killers.keys() else 0)


def _summary(package: str, counts: Counter[str]) -> str:
    return f"{package}: {counts.total()} mutations, " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))


if __name__ == "__main__":
    main()

"""The `mdsrec` command: `mdsrec train ...` does what `python jobs/train.py ...` does.

Each verb is a module of `jobs/`, which is imported when the verb is chosen. The list of verbs, with a line on each, is
read from the modules' source, so that `mdsrec --help` does not wait for PyTorch.
"""

from __future__ import annotations

import ast
import difflib
from importlib import import_module
from pathlib import Path

import click

import jobs
from mdsrec import __version__

_FOLDER = Path(jobs.__file__ or "").parent
# The order of a pipeline; verbs that are not here follow by name.
_ORDER = ("prepare_data", "build_graph", "train", "evaluate", "recommend")


class Verbs(click.Group):
    """A group of commands whose members are the jobs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        verbs = [path.stem for path in _FOLDER.glob("*.py") if _main_of(path) is not None]
        return sorted(verbs, key=lambda verb: (_ORDER.index(verb) if verb in _ORDER else len(_ORDER), verb))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, written with `_` or `-`; None: there is no such verb."""
        verb = cmd_name.replace("-", "_")
        if verb not in self.list_commands(ctx):
            return None
        command = import_module(f"{jobs.__name__}.{verb}").main
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The chosen verb and what follows it; an unknown verb is refused with the nearest one."""
        given = args[0]
        if not given.startswith("-") and self.get_command(ctx, given) is None:
            verbs = self.list_commands(ctx)
            close = difflib.get_close_matches(given.replace("-", "_"), verbs, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"the verbs are {', '.join(verbs)}"
            raise click.UsageError(f"{given}: no such verb; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with the first sentence of each, read from source."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, _summary(_FOLDER / f"{verb}.py")) for verb in self.list_commands(ctx)])


def _main_of(path: Path) -> ast.FunctionDef | None:
    """The function `main` of a job; None for a module that is no command."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            return node
    return None


def _summary(path: Path) -> str:
    """The first sentence of a job's help, without its full stop."""
    function = _main_of(path)
    text = (ast.get_docstring(function) if function else None) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".")


@click.group(cls=Verbs)
@click.version_option(__version__)
def main() -> None:
    """MDSRec: from files to a trained multimodal sequential recommender, verb by verb.

    `mdsrec VERB --help` lists a verb's options.
    """

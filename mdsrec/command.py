"""The `mdsrec` command: `mdsrec train ...` does the same as `python jobs/train.py ...`.

Each verb is a module of `jobs/`, which is imported only when the verb is used. `mdsrec --help` reads the verbs and
their descriptions from the modules' source text, so that it need not load PyTorch.
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
# The order of a pipeline. All other verbs follow in alphabetical order.
_ORDER = ("prepare_data", "inspect_data", "build_graph", "train", "evaluate", "recommend")


class Verbs(click.Group):
    """A click group whose commands are the jobs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        verbs = [path.stem for path in _FOLDER.glob("*.py") if _main_of(path) is not None]
        return sorted(verbs, key=lambda verb: (_ORDER.index(verb) if verb in _ORDER else len(_ORDER), verb))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a verb, which may be written with `_` or `-`; None if there is no such verb."""
        verb = cmd_name.replace("-", "_")
        if verb not in self.list_commands(ctx):
            return None
        command = import_module(f"{jobs.__name__}.{verb}").main
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb's name, its command and the remaining arguments.

        Raises:
            click.UsageError: there is no such verb; the message names the one that is spelt most like it.
        """
        given = args[0]
        if not given.startswith("-") and self.get_command(ctx, given) is None:
            verbs = self.list_commands(ctx)
            close = difflib.get_close_matches(given.replace("-", "_"), verbs, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"the verbs are {', '.join(verbs)}"
            raise click.UsageError(f"{given}: no such verb; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs, each with the first sentence of its help."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, _summary(_FOLDER / f"{verb}.py")) for verb in self.list_commands(ctx)])


def _main_of(path: Path) -> ast.FunctionDef | None:
    """Return the function `main` of a module's source; None if the module is not a command."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            return node
    return None


def _summary(path: Path) -> str:
    """Return the first sentence of a job's help, without its full stop."""
    function = _main_of(path)
    text = (ast.get_docstring(function) if function else None) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".")


@click.group(cls=Verbs)
@click.version_option(__version__)
def main() -> None:
    """Train multimodal sequential recommenders, from interaction files to recommendations.

    `mdsrec VERB --help` explains a verb and its options.
    """

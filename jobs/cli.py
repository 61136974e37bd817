"""What all jobs share: the --config and --set options, and one clear line for bad input."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import distributed
from contracts.errors import InputError, TaskFailed
from distributed.output import set_verbose
from evaluation.settings import ranking_advice, ranking_note
from jobs.unread import readers_may_leave
from storage.paths import expand_home

if TYPE_CHECKING:  # jobs that only print something do not wait for PyTorch
    from distributed.inputs import Inputs

# The advice that the outermost job under way has given.
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


def job(function: Callable[..., None]) -> Callable[..., None]:
    """Turn an InputError into `error: ...` on stderr and exit status 2, a TaskFailed into status 1; no traceback.

    Where the reader of the output leaves (`| head -1`), the job goes on to its end, unread.
    """

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        _print_warnings_as_they_are()
        try:
            _check_own_packages()
            with readers_may_leave(), _saying_once():
                function(*arguments, **options)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except TaskFailed as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        except MemoryError as error:
            click.echo(f"error: this machine's memory is too small ({error}); use a larger one, or less data", err=True)
            sys.exit(2)

    return run


@contextmanager
def _saying_once() -> Iterator[None]:
    """Within the outermost job, advice is given once; a job may run others, as the demo does."""
    if _said.get() is not None:
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def print_ranking_note(settings: Mapping[str, Any], repeat_shares: Mapping[str, float | None]) -> None:
    """Print `evaluation.settings.ranking_note`; its advice once in a job and the jobs that it runs."""
    said = _said.get()
    advice = ranking_advice(settings, repeat_shares)
    print(ranking_note(settings, repeat_shares, with_advice=said is None or advice not in said))
    if said is not None:
        said.add(advice)


def _print_warnings_as_they_are() -> None:
    """Warnings go to stderr without a logger's prefix, also where a library has chosen one while it was imported."""
    logging.basicConfig()
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:  # and not a subclass, such as one that a test reads
            handler.setFormatter(logging.Formatter("%(message)s"))


class HomePath(click.ParamType):
    """A file, folder or URI, whose leading `~` is the home folder."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return expand_home(value)


class NamedPath(click.ParamType):
    """A file, or NAME=FILE, whose file's leading `~` is the home folder."""

    name = "[name=]path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        name, equals, file = value.partition("=")
        return f"{name}={expand_home(file)}" if equals else expand_home(value)


def config_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--config FILE` and repeated `--set section.field=value`, passed on as config_path and overrides."""
    overrides = click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="override a knob of configs/schema.py"
    )
    path = click.option(
        "--config", "config_path", type=HomePath(), metavar="FILE", help="YAML file, e.g. configs/scientific.yaml"
    )
    return path(overrides(function))


def verbose_option(function: Callable[..., None]) -> Callable[..., None]:
    """`--verbose`, which shows what Ray itself prints; the job need not pass it on."""

    def tell(_context: click.Context, _option: click.Parameter, wanted: bool) -> None:
        set_verbose(wanted)

    option = click.option(
        "--verbose", is_flag=True, expose_value=False, callback=tell, help="show also what Ray and its workers log"
    )
    return option(function)


def validate(inputs: Inputs) -> None:
    """Read every byte of the dataset and the graph, once, before any worker starts: workers only open them.

    Raises:
        InputError: something in them is wrong, or was altered since they were written.
    """
    inputs.dataset.validate()
    if inputs.graph is not None:
        inputs.graph.validate()


def check_output(target: Path, overwrite: bool, is_earlier: Callable[[Path], bool], otherwise: str) -> None:
    """Whether a file may be written there: nothing but what the same job wrote earlier is ever replaced.

    Args:
        is_earlier: whether a file is one of this job's.
        otherwise: what a file is that is not, such as "no file of recommendations".

    Raises:
        InputError: it may not; says why and what to do.
    """
    if not target.parent.is_dir():
        raise InputError(f"--output {target}: its folder does not exist; create it first")
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_file() or not is_earlier(target):
        raise InputError(f"--output {target}: exists and is {otherwise}, so it is never replaced; name another file")
    if not overwrite:
        raise InputError(f"--output {target}: exists; name another file or add --overwrite")


def check_suffix(target: Path, what: str, *suffixes: str) -> None:
    """The name of an output says what is in the file.

    Args:
        what: what the file will be, such as "a Parquet file". suffixes: the ones it may have.

    Raises:
        InputError: another suffix, or none.
    """
    if target.suffix.lower() not in suffixes:
        raise InputError(
            f"--output {target}: is to be {what}, but its suffix is {target.suffix!r}; call it "
            f"{target.stem}{' or '.join(suffixes)}"
        )


def _check_own_packages() -> None:
    """`distributed` is also the name that dask.distributed installs: say so rather than fail further down."""
    found = Path(distributed.__file__ or "").resolve().parent.parent
    ours = Path(__file__).resolve().parent.parent
    if found != ours:
        raise InputError(
            f"the package `distributed` was imported from {found}, not from {ours}: another library of that name "
            "(dask.distributed) comes first on the path; use a virtual environment without it (make install)"
        )

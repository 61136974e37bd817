"""Options and checks that all jobs share, and the decorator that prints bad input as one line."""

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
from contracts.errors import InputError, TaskFailed, of_missing_ray
from distributed.output import set_verbose
from evaluation.result_settings import ranking_advice, ranking_note
from jobs.unread import closed_output_ignored
from storage.paths import expand_home

if TYPE_CHECKING:  # so that jobs which only print do not load PyTorch
    from distributed.inputs import Inputs

# Advice and notes that this command has printed already; None outside of a job.
_printed: ContextVar[set[str] | None] = ContextVar("printed", default=None)


def job(function: Callable[..., None]) -> Callable[..., None]:
    """Turn an InputError into `error: ...` on stderr and exit status 2, and a TaskFailed into status 1; no traceback.

    If the reader of the output closes the pipe (`| head -1`), the job still runs to its end.
    """

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        _print_warnings_without_prefix()
        try:
            _check_own_packages()
            with closed_output_ignored(), _printing_once():
                function(*arguments, **options)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except TaskFailed as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        except ModuleNotFoundError as error:
            if (refused := of_missing_ray(error)) is None:
                raise
            click.echo(f"error: {refused}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted: repeat the command to continue", err=True)
            sys.exit(1)
        except MemoryError as error:
            click.echo(f"error: this machine's memory is too small ({error}); use a larger one, or less data", err=True)
            sys.exit(2)

    return run


@contextmanager
def _printing_once() -> Iterator[None]:
    """Print each advice and each note once per command, also where a job runs other jobs, as the demo does."""
    if _printed.get() is not None:
        yield
        return
    token = _printed.set(set())
    try:
        yield
    finally:
        _printed.reset(token)


def print_ranking_note(settings: Mapping[str, Any], repeat_shares: Mapping[str, float | None]) -> None:
    """Print `evaluation.result_settings.ranking_note`. Its advice is left out if this command has printed it before."""
    printed = _printed.get()
    advice = ranking_advice(settings, repeat_shares)
    print(ranking_note(settings, repeat_shares, with_advice=printed is None or advice not in printed))
    if printed is not None:
        printed.add(advice)


def _print_warnings_without_prefix() -> None:
    """Print logged warnings to stderr without a prefix, even if a library set one at import; notes once per command."""
    logging.basicConfig()
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:  # not a subclass: tests install their own
            handler.setFormatter(logging.Formatter("%(message)s"))
            handler.addFilter(_is_new)  # a filter that is there already is not added again


def _is_new(record: logging.LogRecord) -> bool:
    """Whether to print a record: always, except for a note that this command has printed before."""
    printed, text = _printed.get(), record.getMessage()
    if printed is None or not text.startswith("note: "):
        return True
    is_new = text not in printed
    printed.add(text)
    return is_new


class HomePath(click.ParamType):
    """The type of an option that takes a file, a folder or a URI. A leading `~` is replaced by the home folder."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return expand_home(value)


class NamedPath(click.ParamType):
    """The type of an option that takes FILE or NAME=FILE. A leading `~` of FILE is replaced by the home folder."""

    name = "[name=]path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        name, equals, file = value.partition("=")
        return f"{name}={expand_home(file)}" if equals else expand_home(value)


def config_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--config FILE` and `--set section.field=value`, which are passed on as config_path and overrides."""
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.FIELD=VALUE",
        help="set a knob (`mdsrec knobs` lists them); may be repeated",
    )
    path = click.option(
        "--config", "config_path", type=HomePath(), metavar="FILE", help="YAML file, e.g. configs/scientific.yaml"
    )
    return path(overrides(function))


def verbose_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--verbose`, which shows the output of Ray itself. It acts when it is parsed; the job gets no parameter."""

    def switch(_context: click.Context, _option: click.Parameter, is_verbose: bool) -> None:
        set_verbose(is_verbose)

    option = click.option(
        "--verbose", is_flag=True, expose_value=False, callback=switch, help="also show the logs of Ray and its workers"
    )
    return option(function)


def validate(inputs: Inputs) -> None:
    """Read and check every byte of the dataset and the graph before any worker starts. Workers do not check again.

    Raises:
        InputError: a file is wrong, or was altered since it was written.
    """
    inputs.dataset.validate()
    if inputs.graph is not None:
        inputs.graph.validate()


def check_output(
    target: Path, overwrite: bool, is_earlier: Callable[[Path], bool], otherwise: str, *, flag: str = "output"
) -> None:
    """Check that an output file may be written. Only a file that the same job wrote earlier may be replaced.

    Args:
        target: the file to write.
        overwrite: whether --overwrite was given.
        is_earlier: whether a file was written by this job.
        otherwise: how a message describes any other file, such as "not a file of recommendations".
        flag: the option that names the file, for messages.

    Raises:
        InputError: the file may not be written. The message says why and what to do.
    """
    if not target.parent.is_dir():
        raise InputError(f"--{flag} {target}: its folder does not exist; create it first")
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_file() or not is_earlier(target):
        raise InputError(f"--{flag} {target}: exists and is {otherwise}, so it is never replaced; name another file")
    if not overwrite:
        raise InputError(f"--{flag} {target}: exists; name another file or add --overwrite")


def check_suffix(target: Path, what: str, *suffixes: str, flag: str = "output") -> None:
    """Check that the suffix of an output file fits the format that will be written.

    Args:
        target: the file to write.
        what: the format, as a message names it, such as "a Parquet file".
        suffixes: the suffixes that the file may have.
        flag: the option that names the file, for messages.

    Raises:
        InputError: the file has another suffix, or none.
    """
    if target.suffix.lower() not in suffixes:
        raise InputError(
            f"--{flag} {target}: will be {what}, so its suffix cannot be {target.suffix!r}; call it "
            f"{target.stem}{' or '.join(suffixes)}"
        )


def _check_own_packages() -> None:
    """Check that `distributed` is this project's package, since dask.distributed installs one of the same name.

    Raises:
        InputError: Python imported another package of that name.
    """
    found = Path(distributed.__file__ or "").resolve().parent.parent
    ours = Path(__file__).resolve().parent.parent
    if found != ours:
        raise InputError(
            f"the package `distributed` was imported from {found}, not from {ours}: another library of that name "
            "(dask.distributed) comes first on Python's path; use a virtual environment without it (make install)"
        )

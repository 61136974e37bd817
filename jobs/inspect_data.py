"""Look at a dataset before training: python jobs/inspect_data.py --dataset DATASET [--output PAGE.html]"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from contracts.errors import InputError
from data.dataset import Dataset
from distributed.job_paths import absolute, absolute_file
from experiments.inspection.facts import DatasetFacts
from experiments.inspection.inspect import inspect_dataset
from experiments.inspection.page import GENERATOR, page
from experiments.inspection.text import text
from experiments.page.document import holds_page
from jobs.cli import HomePath, check_output, check_suffix, job
from storage.durable_files import write_text


@click.command()
@click.option("--dataset", required=True, type=HomePath(), metavar="DATASET", help="dataset folder or URI")
@click.option("--output", metavar="FILE", help=".html file to write: the report as a page, with pictures")
@click.option("--json", "json_output", metavar="FILE", help=".json file to write: all facts, for programs")
@click.option("--overwrite", is_flag=True, help="replace earlier files of this job at --output and --json")
@job
def main(dataset: str, output: str | None, json_output: str | None, overwrite: bool) -> None:
    """Report what a dataset holds and what would be surprising about it, before you train.

    The report is printed. It has counts, histories, popularity, times, features, texts and a few users and items. The
    job reads every value and compares the bytes with the dataset's fingerprint first.
    """
    folder = absolute("dataset", dataset)
    assert folder is not None
    page_file = _target("output", output, "an HTML page", (".html", ".htm"), overwrite, _is_page)
    json_file = _target("json", json_output, "JSON", (".json",), overwrite, _is_facts)
    facts = inspected(folder)
    print(text(facts))
    if page_file is not None:
        _write("output", page_file, page(facts))
    if json_file is not None:
        _write("json", json_file, facts_json(facts))


def inspected(dataset: str) -> DatasetFacts:
    """Check every value of a dataset, and return the facts about it.

    Raises:
        InputError: this is no dataset, it was altered, or it has no interactions.
    """
    data = Dataset.open(dataset)
    data.validate()
    return inspect_dataset(data)


def facts_json(facts: DatasetFacts) -> str:
    """Return all facts as JSON; the fields are those of `DatasetFacts`."""
    return json.dumps(asdict(facts), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _target(
    flag: str,
    file: str | None,
    what: str,
    suffixes: tuple[str, ...],
    overwrite: bool,
    is_earlier: Callable[[Path], bool],
) -> Path | None:
    """Return the path of a file to write, or None if none is asked for. Raises InputError if it may not be written."""
    if file is None:
        return None
    target = Path(absolute_file(flag, file))
    check_suffix(target, what, *suffixes, flag=flag)
    check_output(target, overwrite, is_earlier, "not a file of this job", flag=flag)
    return target


def _is_page(path: Path) -> bool:
    return holds_page(path, GENERATOR)


def _is_facts(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"fingerprint", "num_interactions", "surprises"} <= set(found)


def _write(flag: str, target: Path, content: str) -> None:
    try:
        write_text(target, content)
    except OSError as error:
        raise InputError(
            f"--{flag} {target}: cannot be written ({error.strerror or error}); free space or change permissions"
        ) from None
    print(f"wrote {target}")


if __name__ == "__main__":
    main()

"""Cases of bad input for jobs/inspect_data.py: the dataset, and the files to write."""

from __future__ import annotations

import json

from experiments.inspection.page import GENERATOR
from experiments.page.markup import element
from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import cut, flip, folder, link, remove, write

_PAGE, _FACTS = "page.html", "facts.json"
_LOOK = "inspect_data --dataset {here}/dataset"
_PAGES = f"{_LOOK} --output {{here}}/{_PAGE}"
_JSON = f"{_LOOK} --json {{here}}/{_FACTS}"
_EARLIER_PAGE = f"<!DOCTYPE html>{element('meta', name='generator', content=GENERATOR)}"
_EARLIER_FACTS = json.dumps({"fingerprint": "", "num_interactions": 1, "surprises": []})

INSPECTION = Group(
    "jobs/inspect_data.py",
    (
        Case("no dataset is named", "inspect_data"),
        Case("no such dataset", "inspect_data --dataset {here}/nowhere"),
        Case("a file for a dataset", "inspect_data --dataset {here}/raw.csv"),
        Case("an unfinished dataset", _LOOK, remove("dataset/manifest.json")),
        Case("a dataset at an unknown kind of URI", "inspect_data --dataset ftp://host/dataset"),
        Case("a dataset with a file cut in half", _LOOK, cut("dataset/features/text.npy", 0.5)),
        Case("a dataset with one bit of its sequences changed", _LOOK, flip("dataset/sequences.arrow", 0.4)),
        Case("a dataset with one bit of its features changed", _LOOK, flip("dataset/features/text.npy", 0.9)),
        Case("a report under the name of another format", f"{_LOOK} --output {{here}}/page.pdf"),
        Case("a report in no folder", f"{_LOOK} --output {{here}}/none/{_PAGE}"),
        Case("a report at a URI", f"{_LOOK} --output s3://bucket/{_PAGE}"),
        Case("the report is there", _PAGES, write(_PAGE, _EARLIER_PAGE)),
        Case("a report over something else", f"{_PAGES} --overwrite", write(_PAGE, "mine")),
        Case("a report over a folder", f"{_PAGES} --overwrite", folder(_PAGE)),
        Case("a report over a link", f"{_PAGES} --overwrite", link(_PAGE, to="raw.csv")),
        Case("facts under the name of another format", f"{_LOOK} --json {{here}}/facts.yaml"),
        Case("facts at a URI", f"{_LOOK} --json s3://bucket/{_FACTS}"),
        Case("the facts are there", _JSON, write(_FACTS, _EARLIER_FACTS)),
        Case("facts over other JSON", f"{_JSON} --overwrite", write(_FACTS, '{"surprises": []}')),
    ),
)
GROUPS = (INSPECTION,)

"""Cases of bad input for jobs/study.py: study files, overrides, and the folders that a study reads and writes."""

from __future__ import annotations

from tests.jobs.bad_input.case import Case, Group
from tests.jobs.bad_input.damage import Damage, both, flip, folder, write

_FILE = "study.yaml"
_OPENING = "base: configs/demo.yaml\ntitle: What matters?\n"
_SEEDS = "seeds: [0]\n"
_VARIANTS = "variants: {none: {ablation: none}, ICA: {ablation: ICA}}\n"
_BARE = "study --study {here}/study.yaml --output {here}/new"
_STUDY = f"{_BARE} --set dataset={{here}}/dataset"


def _study(text: str) -> Damage:
    return write(_FILE, _OPENING + text)


_SOUND = _study(_SEEDS + _VARIANTS)


FILES = Group(
    "jobs/study.py: study files",
    (
        Case("no such study file", _STUDY),
        Case("a folder for a study file", _STUDY, folder(_FILE)),
        Case("a study file that is no YAML", _STUDY, write(_FILE, "seeds: [\n")),
        Case("a study file that is a list", _STUDY, write(_FILE, "- seeds\n")),
        Case("an empty study file", _STUDY, write(_FILE, "")),
        Case("a field that does not exist", _STUDY, _study(f"{_SEEDS}{_VARIANTS}metrics: [ndcg@10]\n")),
        Case("variants and a grid", _STUDY, _study(f"{_SEEDS}{_VARIANTS}grid: {{model.dim: [8, 16]}}\n")),
        Case("neither variants nor a grid", _STUDY, _study(_SEEDS)),
        Case("no seed", _STUDY, _study(f"seeds: []\n{_VARIANTS}")),
        Case("a seed twice", _STUDY, _study(f"seeds: [1, 1]\n{_VARIANTS}")),
        Case("a negative seed", _STUDY, _study(f"seeds: [-1]\n{_VARIANTS}")),
        Case("a baseline that is no variant", _STUDY, _study(f"{_SEEDS}{_VARIANTS}baseline: full\n")),
        Case("a variant's name with a slash", _STUDY, _study(f"{_SEEDS}variants: {{w/o ICA: {{ablation: ICA}}}}\n")),
        Case("a knob of a grid without values", _STUDY, _study(f"{_SEEDS}grid: {{model.dim: []}}\n")),
        Case("a value of a grid twice", _STUDY, _study(f"{_SEEDS}grid: {{model.dim: [8, 8]}}\n")),
        Case("a list for a value of a grid", _STUDY, _study(f"{_SEEDS}grid: {{evaluation.ks: [[10], [20]]}}\n")),
        Case("a grid of seeds", _STUDY, _study(f"{_SEEDS}grid: {{seed: [1, 2]}}\n")),
        Case(
            "a variant with a knob that does not exist", _STUDY, _study(f"{_SEEDS}variants: {{a: {{model.dims: 8}}}}\n")
        ),
        Case(
            "a variant with a value that cannot be", _STUDY, _study(f"{_SEEDS}variants: {{a: {{model.dropout: 2}}}}\n")
        ),
        Case("a preset that is not there", _STUDY, write(_FILE, f"base: a.yaml\ntitle: t\n{_SEEDS}{_VARIANTS}")),
    ),
)

FOLDERS = Group(
    "jobs/study.py: overrides and folders",
    (
        Case("an override of what is varied", f"{_STUDY} --set ablation=CRE", _SOUND),
        Case("an override of the seed", f"{_STUDY} --set seed=3", _SOUND),
        Case("an override of the run", f"{_STUDY} --set run={{here}}/run", _SOUND),
        Case("an override of a knob that does not exist", f"{_STUDY} --set model.dims=8", _SOUND),
        Case("no dataset", _BARE, _SOUND),
        Case("a dataset that is not there", f"{_BARE} --set dataset={{here}}/none", _SOUND),
        Case("a dataset with a flipped bit", _STUDY, both(_SOUND, flip("dataset/items.parquet", 0.5))),
        Case("a file for the output", _STUDY.replace("/new", "/raw.csv"), _SOUND),
        Case("an output that holds something else", _STUDY, both(_SOUND, write("new/thesis.tex", ""))),
        Case("an output at a URI", _STUDY.replace("{here}/new", "s3://bucket/new"), _SOUND),
        Case("no trial at a time", f"{_STUDY} --parallel 0", _SOUND),
        Case("a report before any trial", f"{_STUDY} --report-only", _SOUND),
    ),
)  # fmt: skip

GROUPS = (FILES, FOLDERS)

"""Jobs, options, knobs and files that the docs name exist."""

import importlib.util
import re
import shlex

import pytest

from configs.knobs import section_of
from configs.loading import load_config
from configs.schema import Config
from tests.packages import PRODUCT, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "cluster.yaml"]


def commands(text):
    """Return every `jobs/x.py ...` and `mdsrec x ...` of a page, with continuation lines and optional [...] parts."""
    joined = re.sub(r"\\\n\s*(?:#\s*)?", " ", text)
    for match in re.finditer(r"(?:python\s+jobs/(\w+)\.py|(?:^|`|bin/)mdsrec ([a-z][\w-]*))([^\n`]*)", joined, re.M):
        yield (
            match[1] or match[2].replace("-", "_"),
            shlex.split(match[3].replace("[", " ").replace("]", " ").replace("...", " ")),
        )


def pages():
    return [pytest.param(page.read_text(), id=page.name) for page in PAGES]


@pytest.mark.parametrize("text", pages())
def test_commands_name_jobs_and_options_that_exist(text):
    for name, arguments in commands(text):
        command = importlib.import_module(f"jobs.{name}").main
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for argument in arguments:
            if argument.startswith("--"):
                assert argument in known | {"--help"}, f"jobs/{name}.py {argument}"


@pytest.mark.parametrize("text", pages())
def test_knobs_exist(text):
    if text.startswith(("# Bad input", "# Adding a ")):
        return  # these pages name knobs that do not exist, and have tests of their own
    sections = "|".join(name for name, knob in Config.model_fields.items() if "Config" in str(knob.annotation))
    named = set(re.findall(r"--set ([\w.]+)=", text)) | set(re.findall(rf"`((?:{sections})\.[\w.]+)`", text))
    for key in named - {"cluster.yaml", "section.field"}:
        section = Config
        for part in key.split("."):
            assert part in section.model_fields, key
            section = section_of(section.model_fields[part])


@pytest.mark.parametrize("text", pages())
def test_files_exist(text):
    folders = "|".join((*PRODUCT, "tests", "docs", "wheel_build"))
    named = set(re.findall(rf"`((?:{folders})/[\w/.]*)`", text)) | set(re.findall(r"\]\(([\w/.]+)\)", text))
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "docs" / name).exists(), name


def test_presets_load():
    presets = sorted((ROOT / "configs").glob("*.yaml"))
    assert len(presets) >= 2
    for preset in presets:
        load_config(str(preset))


def test_the_map_has_the_first_sentence_of_every_file():
    specification = importlib.util.spec_from_file_location("source_map", ROOT / "docs/site/source_map.py")
    source_map = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(source_map)
    assert source_map.PAGE.read_text() == source_map.page(), "run python docs/site/source_map.py"

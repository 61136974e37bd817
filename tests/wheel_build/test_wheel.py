"""The wheel: what is in it, and that it works beside packages of the same names: Dask's, and a project's own."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.packages import PRODUCT, ROOT

pytest.importorskip("setuptools", reason="setuptools builds the wheel")
# Third-party packages. Named on the path, the folder does not bring the editable installation of the checkout.
ENVIRONMENT = Path(sysconfig.get_path("purelib"))
# The interpreter below the virtual environment, which does not know that installation either.
PYTHON = getattr(sys, "_base_executable", sys.executable)

pytestmark = pytest.mark.long


def pip(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    built = pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("mdsrec-*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site") / "site-packages"  # as where wheels are installed
    installed = pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    assert installed.returncode == 0, installed.stderr
    return folder


@pytest.fixture(scope="module")
def site_of_dask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    installed = pip("install", "--target", folder, "distributed==2026.8.0")
    if installed.returncode != 0:
        pytest.skip(f"PyPI's distributed cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture
def project(tmp_path):
    """Somebody's folder with packages named like ours, each of which fails when it is imported."""
    for package in PRODUCT:
        if package != "mdsrec":
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text("raise ImportError('of the project, not of the wheel')\n")
    return tmp_path


def python(folder: Path, sites: list[Path], *arguments: str, timeout: int = 240) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder with the packages of some sites, and not with the checkout's."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, sites))
    environment["PYTHONNOUSERSITE"] = "1"
    command = [PYTHON, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


def output_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_one_name_at_the_top_and_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (top_level,) = (name for name in names if name.endswith("/top_level.txt"))
        assert archive.read(top_level).decode().split() == ["mdsrec"]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mdsrec"}
    for package in PRODUCT:
        below = "" if package == "mdsrec" else "mdsrec/"
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".cu", ".yaml") and "__pycache__" not in path.parts:
                assert f"{below}{path.relative_to(ROOT)}" in names


EVERY_MODULE = """
import importlib, pkgutil, sys
import mdsrec
for found in pkgutil.walk_packages(mdsrec.__path__, "mdsrec."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] in ("cupy", "cupyx", "triton"), (found.name, error)
print(*sorted(name for name in sys.argv[1:] if name in sys.modules))
"""


@pytest.mark.slow
def test_every_module_is_imported_below_mdsrec_alone(site, project):
    packages = [package for package in PRODUCT if package != "mdsrec"]
    assert output_of(python(project, [site, ENVIRONMENT], "-c", EVERY_MODULE, *packages)).strip() == ""


OWN_CODE = """
import json, threading
from mdsrec.distributed.ray.own_code import found_on_this_machine, sent_to_the_cluster
from mdsrec.distributed.watchdog import Watchdog
watchdog = object.__new__(Watchdog)
watchdog._watched = threading.get_ident()
print(json.dumps([found_on_this_machine(), sent_to_the_cluster()["py_modules"], watchdog._place()[0]]))
"""


def test_its_processes_know_where_its_code_is(site, project):
    here, sent, line = json.loads(output_of(python(project, [site, ENVIRONMENT], "-c", OWN_CODE)))
    assert here == {}, "nothing goes before the standard library on the path"
    assert sent == [str(site / "mdsrec")]
    assert line.startswith("distributed/watchdog.py:")


@pytest.mark.slow
def test_it_stands_beside_dasks_distributed(site, site_of_dask, tmp_path):
    code = (
        "import distributed, mdsrec, mdsrec.distributed, mdsrec.distributed.launch\n"
        "print(distributed.Client.__module__, distributed.__version__, distributed.__file__)\n"
        "print(mdsrec.__file__, mdsrec.Config.__module__, mdsrec.distributed.__file__)"
    )
    for order in ([site, ENVIRONMENT, site_of_dask], [ENVIRONMENT, site_of_dask, site]):
        dask, ours = output_of(python(tmp_path, order, "-c", code)).splitlines()
        assert dask.split() == ["distributed.client", "2026.8.0", str(site_of_dask / "distributed" / "__init__.py")]
        assert ours.split() == [
            str(site / "mdsrec" / "__init__.py"), "mdsrec.configs.schema",
            str(site / "mdsrec" / "distributed" / "__init__.py"),
        ]  # fmt: skip
    assert "sasrecf" in output_of(python(tmp_path, [ENVIRONMENT, site_of_dask, site], "-m", "mdsrec", "models"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_pipeline_runs_in_a_folder_with_packages_named_like_ours(site, project):
    small = ["model.dim=8", "model.num_heads=2", "model.max_length=8", "model.dropout=0.0", "training.max_epochs=1"]
    folders = ["dataset=DATASET", "graph=GRAPH", "graph_options.num_centers=4"]

    def verb(name: str, *arguments: str, settings: list[str] | None = None) -> str:
        given = [part for setting in settings or [] for part in ("--set", setting)]
        return output_of(python(project, [site, ENVIRONMENT], "-m", "mdsrec", name, *arguments, *given))

    verb("prepare-data", "--format", "synthetic", "--num-users", "120", "--num-items", "70", "--output", "DATASET")
    assert "wrote graph" in verb("build-graph", settings=folders)
    assert "epoch 1: loss" in verb("train", settings=[*folders, *small, "run=RUN", "cluster.num_workers=1"])
    assert "wrote" in verb("evaluate", "--run", "RUN")
    metrics = json.loads((project / "RUN" / "metrics.json").read_text())
    evaluated = json.loads((project / "RUN" / "evaluation-best.json").read_text())
    assert evaluated["test"]["ndcg@10"] == metrics["test"]["ndcg@10"] > 0
    assert "model.dim" in verb("config", "RUN")

"""The wheel and the sdist hold everything, and a wheel alone is enough to run."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = (
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
)
FOLDERS = ("conf", "docs", "experiments", "lrp", "notebooks", "tests")
LEFT_OUT = ("__pycache__", "_build", ".ipynb_checkpoints")

pytestmark = pytest.mark.slow


def files(folder):
    """What git would track below a folder of the repository."""
    found = [file for file in (ROOT / folder).rglob("*") if file.is_file() and not any(part in LEFT_OUT for part in file.parts)]
    return {file.relative_to(ROOT).as_posix() for file in found if file.suffix not in (".pyc", ".pdf")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, sdist), built in a copy of the sources."""
    pytest.importorskip("build")
    source, out = tmp_path_factory.mktemp("source") / "lrp", tmp_path_factory.mktemp("dist")
    skipped = shutil.ignore_patterns("*.egg-info", *LEFT_OUT)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=skipped)
    for name in (*OURS, "requirements.txt", "setup.py"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "-o", out, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_they_are_complete(built):
    wheel, sdist = built
    held = set(zipfile.ZipFile(wheel).namelist())
    assert files("lrp") <= held, files("lrp") - held
    assert {f"lrp/{name}" for name in files("conf")} <= held
    assert not [name for name in held if not name.startswith(("lrp/", "lrp-"))]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {*OURS, *(name for folder in FOLDERS for name in files(folder))}
    assert wanted <= names, wanted - names
    assert wheel.stat().st_size < 3e6 and sdist.stat().st_size < 20e6


@pytest.mark.long
def test_a_wheel_alone_runs(built, tmp_path):
    """Away from the sources: the command line, a run with its figure and report, and a figure from its table."""
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(tmp_path / "site")

    def lrp(*words):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-c", "import lrp.__main__ as m; print(m.__file__); m.main()", *words]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(tmp_path)), done.stdout
        return done.stdout

    assert "scorer" in lrp("run", "--help")
    lrp(
        "run",
        "model.width=0.03125",
        "model.training.epochs=0",
        "calibration.images=64",
        "scorer=magnitude",
        "sparsity.grid=[0.5]",
        "hydra.run.dir=run",
    )
    assert {"results.csv", "report.html", "figure3.png"} <= {file.name for file in (tmp_path / "run").iterdir()}
    lrp("figure", "figure3", "run", "--out", "drawn")
    assert (tmp_path / "drawn.png").exists()

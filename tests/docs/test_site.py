"""The site builds without a warning, and has what it promises."""

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import lrp

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.long]
pytest.importorskip("sphinx")
pytest.importorskip("furo")
pytest.importorskip("myst_nb")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site; that it was built in a process of its own leaves this one without Sphinx's settings."""
    folder = tmp_path_factory.mktemp("site") / "html"
    words = ["-W", "--keep-going", "-q", "-b", "html", "-c", "docs", ".", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_every_page_is_there_and_every_link_leads_to_a_file(site):
    pages = {*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/results").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")}
    assert not [page for page in pages if not (site / page.relative_to(ROOT)).with_suffix(".html").is_file()]
    assert "url=docs/index.html" in (site / "index.html").read_text()
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            assert re.match(r"\w+:", target) or (page.parent / target).exists(), f"{page.relative_to(site)}: {target}"


def test_the_public_names_are_documented(site):
    header, _, packed = (site / "objects.inv").read_bytes().partition(b"zlib.\n")
    names = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    assert b"lrp" in header
    assert {f"lrp.{name}" for name in lrp.__all__ if not name.startswith("__")} <= names
    assert {"lrp.scorer.base.Scorer", "lrp.selection.global_.GlobalSelection", "lrp.tracker.base.Tracker"} <= names


def test_nothing_is_fetched_from_elsewhere(site):
    """The pages open without a network: no script, style or picture of another site."""
    text = (site / "docs/index.html").read_text(encoding="utf-8") + (site / "notebooks/quickstart.html").read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|img)[^>]+src="https?:[^"]*"|<link[^>]+href="https?:[^"]*"', text)

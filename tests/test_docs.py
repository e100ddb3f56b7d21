"""The documents that scripts write are up to date, and what they link to is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))  # the scripts there are not part of the package

import make  # noqa: E402
import tables  # noqa: E402

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "experiments/README.md", *sorted(DOCS.rglob("*.md"))]


def test_the_options_are_those_of_conf():
    assert make.page() == make.OPTIONS.read_text(encoding="utf-8"), "run: python docs/make.py"


def test_the_columns_are_those_of_the_tables():
    text = make.RUN_FOLDER.read_text(encoding="utf-8")
    assert make.columns(text) == text, "run: python docs/make.py"


def test_the_reference_has_a_page_for_each_room():
    """The public names, and every part that an option names."""
    pages = make.rooms.pages()
    assert {*pages} == {*make.rooms.REFERENCE.glob("*.md")}, "run: python docs/make.py"
    assert all(text == place.read_text(encoding="utf-8") for place, text in pages.items()), "run: python docs/make.py"
    named = {name for file in (ROOT / "conf").glob("*/*.yaml") for name in re.findall(r"^_target_: (lrp\.[\w.]+)$", file.read_text(), re.M)}
    missing = [name for name in named if not any(f":: {name}\n" in text for text in pages.values())]
    assert len(named) > 50 and not missing


def test_every_option_of_conf_is_listed():
    text = make.OPTIONS.read_text(encoding="utf-8")
    for file in (ROOT / "conf").glob("*/*.yaml"):
        if file.parent.name not in ("hydra", "options"):
            assert re.search(rf"^## {file.parent.name}$.*?^\| `{file.stem}`", text, re.MULTILINE | re.DOTALL), file


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_the_tables_are_those_of_the_csv_files(page):
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run: python docs/tables.py"


def test_every_table_stands_on_a_page():
    names = {name for page in tables.pages() for _, name, _ in tables.MARKED.findall(page.read_text(encoding="utf-8"))}
    assert names == set(tables.TABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_index_names_everything():
    """experiments/README.md has a place for every table, figure and script, and for every page."""
    text = (ROOT / "experiments/README.md").read_text(encoding="utf-8")
    spread = re.sub(
        r"(\w+)\{([\w,]+)\}(\.csv)", lambda match: " ".join(f"`{match[1]}{each}{match[3]}`" for each in match[2].split(",")), text
    )
    results = ROOT / "experiments/results"
    named = [f"`{file.name}`" for file in results.glob("*.csv")] + [f"`{file.stem}`" for file in results.glob("*.png")]
    named += [f"docs/results/{file.name}" for file in (DOCS / "results").glob("*.md")]
    missing = [name for name in named if name not in spread]
    missing += [file.name for file in (ROOT / "experiments").glob("*.py") if file.name not in text]
    assert not missing


def test_every_figure_of_the_results_is_drawn_by_one_command():
    text = (ROOT / "experiments/draw.py").read_text(encoding="utf-8")
    drawn = {*re.findall(r'^    "(\w+)": ', text, re.MULTILINE), "cited_macs"}  # which is drawn with cited
    assert {file.stem for file in (ROOT / "experiments/results").glob("*.png")} == drawn


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert anchor in headings(page.parent / target if target else page), f"{target}#{anchor}"


def narrow_resnet18(weights=None):
    """torchvision's, with an eighth of the channels after its stem and half of the blocks."""
    from torch import nn
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def _make_layer(self, block, planes, *more, **options):
            return super()._make_layer(block, planes // 8, *more, **options)

    network = Narrow(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Linear(64, 1000)
    return network


def test_the_readme_is_read_in_a_minute():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150, "details belong in docs"


@pytest.mark.slow
def test_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    """On another, narrow network: the whole one takes a minute."""
    monkeypatch.setattr("torchvision.models.squeezenet1_1", narrow_resnet18)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    assert "randn(64, 3, 64, 64)" in code
    exec(compile(code.replace("randn(64, 3, 64, 64)", "randn(16, 3, 32, 32)"), "README.md", "exec"), {})
    assert (tmp_path / "small.safetensors").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("page", ["deploy", "tutorial"])
def test_the_code_of_a_page_runs_as_it_stands(page, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})
    assert [file.name for file in tmp_path.iterdir()] == [{"deploy": "small.onnx", "tutorial": "small.safetensors"}[page]]

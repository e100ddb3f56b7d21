"""What notebooks hold as they are committed, and what comes when they are run."""

import json
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PICTURES = {"language_model": 1, "paper": 4, "quickstart": 3, "trainer": 0, "your_own_model": 3}
LONG = ("language_model", "quickstart", "trainer", "your_own_model")
sys.path.insert(0, str(NOTEBOOKS))  # run.py there is not part of the package


def pictures(cells):
    """How many pictures the code cells show; no cell failed or warned."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    return sum("image/png" in output.get("data", {}) for output in outputs)


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_counted():
    assert {file.stem for file in NOTEBOOKS.glob("*.ipynb")} == {*PICTURES}


@pytest.mark.parametrize("name", PICTURES)
def test_outputs_are_small_and_whole(name):
    file = NOTEBOOKS / f"{name}.ipynb"
    cells = code(json.loads(file.read_text(encoding="utf-8")))
    assert file.stat().st_size < 200_000
    assert pictures(cells) == PICTURES[name]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)], f"run: python notebooks/run.py {name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in PICTURES])
def test_the_notebook_runs(name):
    """Every cell, and the pictures are shown: importing lrp, or drawing in its style, once switched them off."""
    from run import executed  # nbclient, which the tests beside this one do without

    assert pictures(code(executed(NOTEBOOKS / f"{name}.ipynb"))) == PICTURES[name]

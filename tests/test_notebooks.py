"""What notebooks hold as they are committed; ``make test`` runs them."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PICTURES = {"language_model": 1, "trainer": 0}  # of those that are committed as they were run; the others without outputs


@pytest.mark.parametrize("file", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda file: file.stem)
def test_outputs_are_small_and_whole(file):
    cells = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert file.stat().st_size < 60_000
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES.get(file.stem, 0)
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    assert bool(outputs) == (file.stem in PICTURES)
    numbers = [cell["execution_count"] for cell in cells]
    assert numbers == (list(range(1, len(cells) + 1)) if outputs else [None] * len(cells))

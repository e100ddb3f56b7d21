"""Rows that are kept are not measured again."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
from kept_rows import KeptRows


def test_rows_are_found_again(tmp_path):
    file = tmp_path / "rows.csv"
    rows = KeptRows(file)
    assert not rows.has(network="a", seed=0)
    rows.add([{"network": "a", "seed": 0, "sparsity": 0.3, "loss": 0.1 + 0.2}, {"network": "a", "seed": 0, "sparsity": 0.5}])
    written = file.read_text()
    again = KeptRows(file)
    assert again.has(network="a", seed=0, sparsity=0.3) and not again.has(network="a", seed=1)
    assert list(again.of(network="a")["loss"])[0] == 0.1 + 0.2
    again.add([{"network": "b", "seed": 1, "sparsity": 0.5, "loss": 1.0}])
    assert file.read_text().startswith(written) and list(again.of(network="b")["seed"]) == [1]

"""A row does not depend on which rows are computed beside it."""

import pandas as pd
import pytest
from shell import run_here

from lrp.results.tables import read_table


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1])
def test_rows_of_a_resumed_job(left, tmp_path):
    """To the last digit, also where only the last one was missing."""
    words = ["scorer=energy", "sparsity.grid=[0.5,0.9]", "resume=true"]
    whole = run_here(tmp_path / "cache", tmp_path / "run", *words)
    for name in ("results.csv", "layers.csv"):
        table = read_table(tmp_path / "run" / name)
        table[table["sparsity"].isin([0.5][:left])].to_csv(tmp_path / "run" / name, index=False)
    again = run_here(tmp_path / "cache", tmp_path / "run", *words)
    kept = [name for name in whole if "seconds" not in name]
    pd.testing.assert_frame_equal(again[kept], whole[kept], check_exact=True, check_dtype=False)

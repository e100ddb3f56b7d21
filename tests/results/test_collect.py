"""Tables of several folders, old and new."""

import pytest
from helpers import RESULT_LAYERS, results_row, results_table

from lrp.errors import InputError
from lrp.results.collect import collect
from lrp.results.columns import COLUMNS
from lrp.results.run_folder import RunFolder


def test_tables_of_earlier_versions_are_read(tmp_path):
    old = [name for name in COLUMNS if not name.startswith("perturbation_")]
    results_table(results_row(0.5))[old].to_csv(tmp_path / "results.csv", index=False)
    read = collect([tmp_path])
    assert list(read.columns) == [*COLUMNS, "folder"] and read["perturbation_joint"].isna().all() and read["accuracy"].tolist() == [0.5]
    results_table(results_row(0.5))[old[1:]].to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(InputError, match="lacks the columns model"):
        collect([tmp_path])


def test_collect(tmp_path):
    for name in ("a", "b/c"):
        RunFolder(tmp_path / name, {}, resume=False).add(results_row(), RESULT_LAYERS)
    assert len(collect([tmp_path])) == 2
    with pytest.raises(InputError, match="no results.csv"):
        collect([tmp_path / "a" / "nothing"])
    (tmp_path / "a" / "results.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns model"):
        collect([tmp_path])

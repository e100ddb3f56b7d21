"""What every study fulfils: cells that its rows name, in a table whose columns it says."""

import pandas as pd
import pytest
from contract.adapt import compose, every

from lrp.config.schema import Config
from lrp.results.columns import COMMON


@pytest.mark.slow
@every("study")
def test_cells_are_named_by_their_keys(name):
    study, rule = compose(f"study={name}").study, f"study={name}: "
    cells = study.cells()
    names = [tuple(cell[key] for key in study.keys) for cell in cells]
    assert cells and len(set(names)) == len(cells), rule + "every cell has keys of its own"
    assert study.cells() == cells, rule + "the cells are the same again, so that a killed job goes on"


@every("study")
def test_columns_are_said(name):
    study, rule = compose(f"study={name}").study, f"study={name}: "
    assert len(set(study.columns)) == len(study.columns) and not set(study.columns) & set(COMMON), rule + "every column is there once"
    assert set(study.keys) <= set(study.columns), rule + "what names a cell is in its row"
    assert study.details.endswith(".csv") and study.details != "results.csv", rule + "details go to a table of their own"
    assert set(study.uses) <= set(Config.__dataclass_fields__), rule + "it uses options that there are"
    assert pd.DataFrame(columns=[*COMMON, *study.columns]).columns.is_unique

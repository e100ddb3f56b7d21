"""Rows that several folders hold of the same run."""

from __future__ import annotations

import pandas as pd

from lrp.errors import some
from lrp.results.columns import MEASURED

_OF_THE_MOMENT = ("seconds", "latency", "threads", "folder")  # beginnings of columns that differ from try to try


def without_repeats(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table with each row once that several folders hold with the same result, however long it took; and a sentence for each that
    they hold with different results, all of which stay."""
    compared = [name for name in table if not str(name).startswith(_OF_THE_MOMENT)]
    kept = table[~table.duplicated(compared)].reset_index(drop=True)
    asked = [name for name in compared if name not in MEASURED]
    if "sparsity" not in asked:  # a study's, whose columns do not say which name a cell
        return kept, []
    said = []
    for _, same in kept[kept.duplicated(asked, keep=False)].groupby(asked, dropna=False, sort=False):
        differing = [name for name in compared if same[name].nunique(dropna=False) > 1]
        first = same.iloc[0]
        said.append(
            f"{first['method']}, {first['scorer']}, seed {first['seed']}, sparsity {first['sparsity']:g}: the same was asked in "
            f"{', '.join(same['folder'].unique())}, and came out differently: "
            + some([f"{name} {', '.join(f'{value:g}' for value in same[name])}" for name in differing])
        )
    return kept, said

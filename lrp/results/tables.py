"""Tables as files, and those of components and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from lrp.errors import InputError, first_line
from lrp.matrices import Components
from lrp.results.columns import LATER


def read_table(file: Path) -> pd.DataFrame:
    """A .csv file; "none" stays a word.

    Raises:
        InputError: For a file that does not exist or is not a table.
    """
    table = read_if_there(file)
    if table is None:
        raise InputError(f"{file}: no such file")
    return table


def read_if_there(file: Path, columns: list[str] | None = None) -> pd.DataFrame | None:
    """As ``read_table``, None where there is no file; with ``columns``, it has exactly these, or all but some of ``LATER``.

    Raises:
        InputError: For a file that is not a table, or has other columns.
    """
    if not file.exists():
        return None
    if file.is_dir():
        raise InputError(f"{file} is a folder, not a table; remove it or choose another folder")
    try:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as a table ({first_line(error)}); remove it or choose another folder") from error
    if columns is not None and list(table.columns) != [name for name in columns if name in table or name not in LATER]:
        raise InputError(f"{file} has other columns than this version of lrp writes; choose another folder")
    return table


def score_table(factors: Sequence[Components], scores: Sequence[Tensor], errors: Sequence[Tensor] | None = None) -> pd.DataFrame:
    """One row per component: its place, singular value and score, and where ``errors`` are given the perturbation's standard error."""
    parts = []
    for i, (factor, score) in enumerate(zip(factors, scores)):
        b = factor.block
        part = pd.DataFrame({"component": range(b.rank), "singular_value": factor.S.numpy(), "score": score.double().cpu().numpy()})
        place = {"layer": b.layer, "block": b.index, "row_start": b.row_start, "row_stop": b.row_stop}
        place |= {"col_start": b.col_start, "col_stop": b.col_stop}
        for at, (name, value) in enumerate(place.items()):
            part.insert(at, name, value)
        if errors is not None:
            part["perturbation_standard_error"] = errors[i].numpy()
        parts.append(part)
    return pd.concat(parts, ignore_index=True)

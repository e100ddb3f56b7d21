"""Tables of many jobs put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lrp.errors import InputError
from lrp.results.columns import ADDED, COLUMNS, COMMON
from lrp.results.tables import _read, read_table


def study_of(folder: Path) -> str | None:
    """The name of the study that a run folder or a sweep's folder holds rows of; None where it is no study's."""
    for file in sorted(folder.glob("**/results.csv")):
        table = read_table(file)
        if "study" in table and len(table):
            return str(table["study"].iloc[0])
    return None


def collect_study(places: Sequence[Path], name: str, columns: Sequence[str], file_name: str = "results.csv") -> pd.DataFrame:
    """All rows of a study's tables below these folders (or of these .csv files); doubled cells once, the last one.

    Raises InputError where there are none or where a table is another's.
    """
    tables = []
    for place in places:
        if not place.exists():
            raise InputError(f"{place}: there is no such folder or file")
        files = [place] if place.is_file() else sorted(place.rglob(file_name))
        tables += [(file, read_table(file)) for file in files]
    if not tables:
        raise InputError(f"no {file_name} lies below {', '.join(str(place) for place in places)}")
    for file, table in tables:
        missing = [column for column in [*COMMON, *columns] if column not in table]
        if missing:
            raise InputError(f"{file} is no table of {name}: it lacks the columns {', '.join(missing)}")
    tables = [table for _, table in tables if len(table)]
    if not tables:
        raise InputError(f"the tables below {', '.join(str(place) for place in places)} hold no rows yet")
    return pd.concat(tables, ignore_index=True)


def collect_details(folders: list[Path], file_name: str) -> pd.DataFrame | None:
    """The tables of details of these job folders, with the seed of each job's rows as first column; None where there are none."""
    tables = []
    for file in [file for folder in folders for file in sorted(folder.rglob(file_name))]:
        rows = file.parent / "results.csv"
        if rows.exists():
            table = pd.read_csv(file, keep_default_na=False, na_values=[""])
            if "seed" not in table:
                table.insert(0, "seed", pd.read_csv(rows)["seed"].iloc[0])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None


def collect(folders: list[Path]) -> pd.DataFrame:
    """All rows of all results.csv below these folders (or of these .csv files), with the folder each came from.

    Raises InputError where there are none.
    """
    tables = []
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("results.csv"))
        for file in files:
            table = _read(file, None)
            missing = [name for name in COLUMNS if name not in table and name not in ADDED]
            if missing:
                raise InputError(f"{file} lacks the columns {', '.join(missing)}")
            table = table.assign(**{name: value for name, value in ADDED.items() if name not in table})
            table = table.reindex(columns=[*COLUMNS, *(name for name in table if name not in COLUMNS)])
            tables.append(table.assign(folder=str(file.parent)))
    if not tables:
        raise InputError(f"no results.csv lies below {', '.join(str(folder) for folder in folders)}")
    return pd.concat(tables, ignore_index=True)

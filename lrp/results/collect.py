"""Tables of many jobs put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lrp.errors import InputError
from lrp.results.columns import ADDED, COLUMNS, COMMON, OWN_COLUMN
from lrp.results.tables import read_table

_ORDER = ("blocking", "decomposition", "scorer", "estimator", "selection", "compensation")  # of words in ``options``; others follow


def study_of(folder: Path) -> str | None:
    """The name of the study that a run folder or a sweep's folder holds rows of; None where they are not a study's."""
    for file in sorted(folder.glob("**/results.csv")):
        table = read_table(file)
        if "study" in table and len(table):
            return str(table["study"].iloc[0])
    return None


def collect(places: Sequence[Path]) -> pd.DataFrame:
    """All rows of all results.csv below these folders (or of these .csv files), with the folder each came from.

    What tables of earlier versions lack is filled in.

    Raises:
        InputError: Where there are none, and for a table that lacks columns.
    """
    tables = []
    for file, table in _tables(places, "results.csv"):
        missing = [name for name in COLUMNS if name not in table and name not in ADDED]
        if missing:
            raise InputError(f"{file} lacks the columns {', '.join(missing)}")
        table = table.assign(**{name: value for name, value in ADDED.items() if name not in table})
        table = table.reindex(columns=[*COLUMNS, *(name for name in table if name not in COLUMNS)])
        options = [_whole_options(row) for row in table.to_dict("records")]
        table["options"] = pd.Series(options, table.index, dtype=object)
        tables.append(table.assign(folder=str(file.parent)))
    return pd.concat(tables, ignore_index=True)


def collect_study(places: Sequence[Path], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """All rows of a study's tables below these folders (or of these .csv files).

    Raises:
        InputError: Where there are none, and for a table of another study.
    """
    tables = _tables(places, "results.csv")
    for file, table in tables:
        missing = [column for column in [*COMMON, *columns] if column not in table]
        if missing:
            raise InputError(f"{file} is not a table of {name}: it lacks the columns {', '.join(missing)}")
    filled = [table for _, table in tables if len(table)]
    if not filled:
        raise InputError(f"the tables below {_listed(places)} hold no rows yet")
    return pd.concat(filled, ignore_index=True)


def collect_tables(places: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    """All rows of these .csv files, of any kind, which have these columns among theirs.

    Raises:
        InputError: For a folder, for a file that is not a table, for one that lacks columns, and where there are no rows.
    """
    tables = []
    for file in places:
        table = read_table(file)
        missing = [name for name in columns if name not in table]
        if missing:
            raise InputError(f"{file} lacks the columns {', '.join(missing)}")
        tables.append(table)
    found = pd.concat(tables, ignore_index=True)
    if found.empty:
        raise InputError(f"{_listed(places)} hold no rows yet")
    return found


def collect_details(folders: Sequence[Path], file_name: str) -> pd.DataFrame | None:
    """The tables of details of these job folders, with the seed of each job's rows as first column; None where there are none."""
    tables = []
    for file in [file for folder in folders for file in sorted(folder.rglob(file_name))]:
        rows = file.parent / "results.csv"
        if rows.exists():
            table = read_table(file)
            if "seed" not in table:
                table.insert(0, "seed", pd.read_csv(rows)["seed"].iloc[0])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None


def _tables(places: Sequence[Path], file_name: str) -> list[tuple[Path, pd.DataFrame]]:
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob(file_name)))]
    if not files:
        raise InputError(f"no {file_name} lies below {_listed(places)}")
    return [(file, read_table(file)) for file in files]


def _whole_options(row: dict) -> str | None:
    """The column ``options`` as it is written now. Rows of earlier versions lack the options that have a column of their own, and
    list a part's seed where it is the job's."""
    words = row["options"].split() if isinstance(row["options"], str) else []
    words = [word for word in words if word not in (f"scorer.seed={row['seed']}", f"method.seed={row['seed']}")]
    listed = {word.partition("=")[0] for word in words}
    for name, (column, default) in reversed(OWN_COLUMN.items()):
        value = row[column]
        if name not in listed and value == value and value is not None and value != default:
            words.insert(0, f"{name}={int(value) if isinstance(value, float) else value}")
    place = {group: index for index, group in enumerate(_ORDER)}
    words.sort(key=lambda word: place.get(word.partition(".")[0], len(_ORDER)))
    return " ".join(words) or None


def _listed(places: Sequence[Path]) -> str:
    return ", ".join(str(place) for place in places)

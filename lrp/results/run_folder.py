"""The tables of a run folder: written one row at a time, always whole, continued after a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lrp.errors import InputError, first_line
from lrp.files import remove_leftovers, write_text, write_whole
from lrp.results.columns import COLUMNS, LATER
from lrp.results.plain import read_settings
from lrp.results.settings import differences
from lrp.results.tables import read_if_there
from lrp.results.versions import versions

MOST_TOLD = 6  # settings that differ


class RunFolder:
    """One job's results.csv, a table of details (layers.csv), config.yaml and versions.json. ``keys``: the columns that name a row;
    ``asked``: how many rows it will have.

    Two processes may do the same job, as when a lost node comes back: each row is stored once, by whichever has it first.

    Raises InputError for a folder that holds rows when ``resume`` is false, and for one whose settings differ.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], resume: bool, columns: Sequence[str] = COLUMNS, details: str = "layers.csv",
        keys: Sequence[str] = ("sparsity",), asked: int | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.columns, self.file, self.keys = folder, list(columns), details, list(keys)
        for place in (folder, folder / "states"):
            remove_leftovers(place)
        rows, self.details = read_if_there(folder / "results.csv", self.columns), read_if_there(folder / details)
        config = folder / "config.yaml"
        if rows is not None and len(rows) and not resume:
            raise InputError("resume", "false", f"{folder} holds finished rows; resume=true keeps them and computes the rest")
        if resume and config.exists():
            differing = differences(read_settings(config), settings)
            if differing:
                more = f"; and {len(differing) - MOST_TOLD} more" if len(differing) > MOST_TOLD else ""
                raise InputError("resume", "true", f"{folder} was made with other settings: {'; '.join(differing[:MOST_TOLD])}{more}")
        if rows is None or not resume:
            rows, self.details = pd.DataFrame(columns=self.columns), None
        self.rows, self.columns = rows, list(rows)
        if self.details is not None:  # a kill may fall between the two tables
            if missing := [key for key in self.keys if key not in self.details]:
                raise InputError(f"{folder / details} lacks the columns {', '.join(missing)}; remove it or choose another folder")
            self.details = self._of(self.details, set(self._keys(self.rows)))
        write_text(config, yaml.safe_dump(dict(settings), sort_keys=False))
        write_text(folder / "versions.json", json.dumps({**versions(), "rows": asked}, indent=1) + "\n")

    def belongs(self, **made_of: str) -> None:
        """Note what the rows are made of, by name: what settings name by a path may be something else by now.

        Raises:
            InputError: Where rows are there that were made of something else, or it cannot be read what they were made of.
        """
        file = self.folder / "made_of.json"
        before = _read_hashes(file) if len(self.rows) and file.is_file() else {}
        if differing := [name for name, value in made_of.items() if before.get(name, value) != value]:
            what = " and of other ".join(differing)
            raise InputError("resume", "true", f"the rows in {self.folder} are of other {what} than now; choose another folder")
        write_text(file, json.dumps(made_of, indent=1) + "\n")

    def finished(self, **key: Any) -> bool:
        """Whether the row named by these values of ``keys`` is there."""
        assert list(key) == self.keys
        return tuple(key.values()) in self._keys(self.rows)

    def update(self) -> None:
        """Take the rows that another process, which does the same job, has stored meanwhile."""
        rows = read_if_there(self.folder / "results.csv", self.columns)
        if rows is None or not (new := set(self._keys(rows)) - set(self._keys(self.rows))):
            return
        details = read_if_there(self.folder / self.file)
        self.rows = _together(self.rows, self._of(rows, new))
        self.details = self.details if details is None else _together(self.details, self._of(details, new))

    def add(self, row: Mapping[str, Any], details: pd.DataFrame) -> None:
        """Store the details of one row and then the row, in place of one with the same ``keys`` that was known of."""
        assert set(row) ^ set(self.columns) <= set(LATER), set(row) ^ set(self.columns)
        key = {key: row[key] for key in self.keys}
        again = self.finished(**key)
        self.update()
        if not again and self.finished(**key):  # by another process, which was quicker
            return
        if again:
            self.rows = self._without(self.rows, row)
            self.details = None if self.details is None else self._without(self.details, row)
        whole = _together(self.details, details)
        write_whole(self.folder / self.file, lambda path: whole.to_csv(path, index=False))
        self.details = whole
        new = pd.DataFrame([{name: row[name] for name in self.columns}], columns=self.columns)
        self.rows = _together(self.rows, new)
        write_whole(self.folder / "results.csv", lambda path: self.rows.to_csv(path, index=False))

    def _without(self, table: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
        """The rows of a table with other ``keys`` than this one."""
        return self._of(table, {*self._keys(table)} - {tuple(row[key] for key in self.keys)})

    def _keys(self, table: pd.DataFrame) -> list[tuple[Any, ...]]:
        return list(table[self.keys].itertuples(index=False, name=None))

    def _of(self, table: pd.DataFrame, keys: Set[tuple[Any, ...]]) -> pd.DataFrame:
        """The rows of a table with these ``keys``."""
        return table[[key in keys for key in self._keys(table)]]

    def add_trials(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Store what a search tried (search.csv), in place of what an earlier run tried at the same sparsities."""
        if not trials:
            return
        file, new = self.folder / "search.csv", pd.DataFrame(trials)
        old = read_if_there(file)
        whole = new if old is None else pd.concat([old[~old["sparsity"].isin(new["sparsity"])], new], ignore_index=True)
        write_whole(file, lambda path: whole.to_csv(path, index=False))


def _together(first: pd.DataFrame | None, then: pd.DataFrame) -> pd.DataFrame:
    return then if first is None or first.empty else pd.concat([first, then], ignore_index=True)


def _read_hashes(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} cannot be read ({first_line(error)}); remove it or choose another folder") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no hashes; remove it or choose another folder")
    return found


def mean_of(rows: pd.DataFrame, column: str) -> float:
    """The mean of a column of a job's rows, which a sweeper that searches is given.

    Raises:
        InputError: Where the rows hold no number in it.
    """
    mean = float(pd.to_numeric(rows[column], errors="coerce").mean()) if column in rows else math.nan
    if math.isnan(mean):
        raise InputError("optimise", column, "the rows of this job have no number there")
    return mean

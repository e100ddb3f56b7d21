"""What runs leave: their tables and saved networks compared with those of an undisturbed run, and the counts of a campaign."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from faults.children import files_below

Rows = list[tuple[str, ...]]
TIMES = ("seconds", "folder")  # columns that differ from run to run


@dataclass
class Counts:
    """What a part of the campaign found: numbers by their names, and of each that should be 0 the first examples."""

    section: str
    numbers: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def add(self, name: str, number: int = 1, example: str = "") -> None:
        self.numbers[name] = self.numbers.get(name, 0) + number
        if number and example:
            self.examples.append(f"{name}: {example}")
            print(f"    {self.section}: {name}: {example}", flush=True)

    def rows(self) -> Iterator[dict[str, object]]:
        for name, value in self.numbers.items():
            yield {"section": self.section, "count": name, "value": value}


Section = Callable[[Path, float, int], Counts]  # a folder for all that it writes, how long a campaign (1: the whole one), a seed


def rows_of(file: Path) -> Rows:
    """The lines of a table as texts, without what differs from run to run."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    kept = [name for name in table if not any(word in name for word in TIMES)]
    return list(table[kept].itertuples(index=False, name=None))


class Left(NamedTuple):
    """What a run leaves in its folder: tables by file, hashes of saved networks, and all files of folder and cache."""

    tables: dict[str, Rows]
    details: dict[str, Rows]
    networks: dict[str, str]
    files: set[str]


def left_in(folder: Path, cache: Path) -> Left:
    """What lies in the folder of a run and in its cache."""
    files = {str(file.relative_to(folder.parent)) for file in files_below(folder)}
    files |= {f"cache/{file.relative_to(cache)}" for file in files_below(cache)}

    def tables(*names: str) -> dict[str, Rows]:
        return {str(file.relative_to(folder)): rows_of(file) for name in names for file in sorted(folder.rglob(name))}

    networks = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("model-*.safetensors"))}
    return Left(tables("results.csv"), tables("layers.csv", "epochs.csv", "measures.csv", "calibration.csv", "search.csv"), networks, files)


def compare(right: Left, found: Left, counts: Counts, what: str) -> None:
    """Count rows that are lost or different, tables and networks that differ, and files that an undisturbed run does not leave."""
    lost, different = [], []
    for file, rows in {**right.tables, **right.details}.items():
        mine = {**found.tables, **found.details}.get(file, [])
        lost += [f"{file} row {number}" for number in range(len(mine), len(rows))]
        different += [f"{file} row {number}" for number, (a, b) in enumerate(zip(rows, mine)) if a != b]
        different += [f"{file} row {number}" for number in range(len(rows), len(mine))]
    different += [name for name, digest in right.networks.items() if found.networks.get(name) != digest]
    left = sorted(found.files - right.files)
    for name, problems in (("rows lost", lost), ("rows different", different), ("files left over", left)):
        counts.add(name, len(problems), f"{what}: {', '.join(problems[:3])}" if problems else "")


def unfinished(right: Left, folder: Path, counts: Counts, what: str) -> None:
    """Count the rows of a run that was stopped which are not the first ones of an undisturbed run."""
    for file, rows in right.tables.items():
        mine = rows_of(folder / file) if (folder / file).exists() else []
        wrong = [number for number, row in enumerate(mine) if number >= len(rows) or row != rows[number]]
        if Path(file).parent != Path():  # the table of a whole sweep is made at its end, of the jobs that are done
            counts.add("rows different", len(wrong), f"{what}: {file} row {wrong[0]}" if wrong else "")

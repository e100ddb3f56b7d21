"""The rows of many runs and sweeps, from many machines, in one table: ``python -m lrp.collect FOLDER... [--out FILE]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lrp.config.unfinished import unfinished
from lrp.errors import InputError, counted
from lrp.files import write_whole
from lrp.results.collect import collect, collect_study, study_of
from lrp.results.jobs import job_folders
from lrp.results.repeats import without_repeats

TABLE = "collected.csv"
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def gather(places: Sequence[Path]) -> pd.DataFrame:
    """All rows of the runs below these folders, with the folder each came from: those of prunings, or of one study.

    Raises:
        InputError: Where there are none, and where they are of several studies.
    """
    folders = list(dict.fromkeys(folder.resolve() for place in places for folder in job_folders(place)))
    named = {folder: study_of(folder) for folder in folders}
    studies = {*named.values()}
    if studies in (set(), {None}):
        return collect(folders or places)
    if len(studies) > 1:
        kinds = ", ".join(sorted(study or "prunings" for study in studies))
        raise InputError(f"these folders hold rows of {kinds}, which have other columns; collect each by itself")
    (study,) = studies
    return pd.concat([collect_study([folder], str(study), ()).assign(folder=str(folder)) for folder in folders], ignore_index=True)


def main(words: Sequence[str] | None = None, prog: str = "python -m lrp.collect") -> None:
    """Write the table of the folders on the command line, and list what is not finished.

    Raises:
        InputError: Never: it becomes the SystemExit.
        SystemExit: With one sentence, for what holds no runs.
    """
    parser = argparse.ArgumentParser(prog=prog, description="One table of the rows of many runs; those not finished, with their commands.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of runs and sweeps, and folders of such")
    parser.add_argument("--out", type=Path, help=f"the table, {' or '.join(WRITERS)} ({TABLE} in the first folder)")
    chosen = parser.parse_args(words)
    for folder in chosen.folders:
        if not folder.is_dir():
            raise SystemExit(f"lrp: {folder}: {'it is a file, not a folder' if folder.exists() else 'no such folder'}")
    target = chosen.out or chosen.folders[0] / TABLE
    if target.suffix not in WRITERS:
        raise SystemExit(f"lrp: --out {target}: the name of the table must end in {' or '.join(WRITERS)}")
    try:
        runs, waiting = unfinished(chosen.folders)
        try:
            table, differing = without_repeats(found := gather(chosen.folders))
        except InputError:
            if not waiting:
                raise
            print(f"no rows yet of {counted(len(runs), 'run')}")  # their commands are what is wanted
        else:
            write_whole(target, lambda path: WRITERS[target.suffix](table, path))
            repeated = len(found) - len(table)
            more = f", without {counted(repeated, 'row')} that several folders hold" if repeated else ""
            print(f"{target}: {counted(len(table), 'row')} of {counted(table['folder'].nunique(), 'run')}{more}")
            for sentence in differing:
                print(f"lrp: {sentence}", file=sys.stderr)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    except OSError as error:
        raise SystemExit(f"lrp: {error.filename or target}: {error.strerror}") from None
    if waiting:
        print(f"not finished: {len(waiting)} of {counted(len(runs), 'run')}")
    for run in waiting:
        print(f"{run.folder}: {run.state}\n    {run.command}")


if __name__ == "__main__":
    main()

"""The command line of the figures: ``lrp figure figure1 FOLDER... [--out figure1]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lrp.errors import InputError
from lrp.figure.base import Figure
from lrp.files import write_whole
from lrp.results.collect import collect_details
from lrp.results.tables import read_table


def command(figure: Figure, words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Draw a figure from the folders on the command line. ``words``: its words; None: those of the process, whose name is ``prog``.

    Raises:
        InputError: Never: it becomes the SystemExit.
        SystemExit: With one sentence, for folders and tables that cannot be drawn.
    """
    parser = argparse.ArgumentParser(prog=prog, description=figure.about)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, sweep folders or tables (.csv)")
    parser.add_argument("--out", type=Path, default=Path(figure.name), help=f"the figure, .png and .pdf ({figure.name})")
    if figure.details is not None:
        name = figure.details.removesuffix(".csv")
        parser.add_argument(f"--{name}", dest="details", type=Path, help=f"the table of {name}, where FOLDER is a table")
    parser.add_argument("--table", type=Path, help="where all rows go, put together (.csv)")
    for name, description in figure.arguments.items():
        parser.add_argument(name, **description)
    chosen = vars(parser.parse_args(words))
    folders, target, file = chosen.pop("folders"), chosen.pop("out"), chosen.pop("details", None)
    rows_to = chosen.pop("table")
    for place in folders:
        if not place.exists():
            raise SystemExit(f"lrp: {place}: no such folder or file")
    try:
        table = figure.collect(folders)
        for place in folders:
            if place.is_dir() and not any(place.rglob("results.csv")):
                print(f"lrp: {place}: it has no rows and is left out", file=sys.stderr)
        details = None
        if figure.details is not None:
            details = collect_details(folders, figure.details) if file is None else read_table(file)
        text, paths = figure.draw(table, details, target, **chosen)
        if rows_to is not None:
            rows = table.drop(columns="folder", errors="ignore").drop_duplicates()
            write_whole(rows_to, lambda path: rows.to_csv(path, index=False))
            paths = [*paths, rows_to]
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    print(text)
    print(*paths, sep="\n")

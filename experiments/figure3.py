"""Figure 3: accuracy against sparsity, from the tables of any runs.

    python experiments/figure3.py FOLDER... [--reference table.csv] [--column accuracy_before_recovery] [--out figure3]

Averages over seeds alone; whatever else differs is a line of its own. Needs nothing but the tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lrp.errors import InputError
from lrp.figure.accuracy import accuracy_table, draw_figure3, read_reference
from lrp.results.collect import collect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, sweep folders or results tables (.csv)")
    parser.add_argument("--reference", type=Path, help="another system's table: method, sparsity_params or params_kept, accuracy")
    parser.add_argument("--reference-column", default="accuracy", help="its column to draw (accuracy)")
    parser.add_argument("--column", default="accuracy", choices=["accuracy", "accuracy_before_recovery"], help="what to draw (accuracy)")
    parser.add_argument("--out", type=Path, default=Path("figure3"), help="the figure, .png and .pdf (figure3)")
    parser.add_argument("--title")
    args = parser.parse_args()
    try:
        for folder in args.folders:
            if not folder.exists():
                raise InputError(f"{folder}: there is no such folder or file")
        table = collect(args.folders)
        reference = read_reference(args.reference, args.reference_column) if args.reference else None
        paths = draw_figure3(table, args.out, args.column, reference, args.reference_column, args.title)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    print(accuracy_table(table, args.column))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()

"""Figure 1: accuracy by size and rank of the last hidden layer, from the tables of any runs.

    python experiments/figure1.py FOLDER... [--out figure1]

Prints the table in the paper's shape (the paper's values in brackets); writes it as .csv and .md beside the heat maps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lrp.errors import InputError
from lrp.figure.figure1 import draw_figure1, figure1_markdown, figure1_table
from lrp.results.collect import collect_study
from lrp.study.dim_rank import DimRank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, sweep folders or tables (.csv)")
    parser.add_argument("--out", type=Path, default=Path("figure1"), help="the figure, .png and .pdf (figure1)")
    args = parser.parse_args()
    try:
        table = collect_study(args.folders, DimRank.name, DimRank.columns)
        paths = draw_figure1(table, args.out)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    print(figure1_markdown(figure1_table(table)))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()

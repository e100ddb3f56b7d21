"""Figure 2: train at one rank, switch to another, from the tables of any runs; draws what is there and says what is missing.

python experiments/figure2.py FOLDER... [--out figure2]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lrp.errors import InputError
from lrp.figure.figure2 import draw_figure2, figure2_markdown, figure2_table, missing_cells
from lrp.results.collect import collect_study
from lrp.study.rank_switch import RankSwitch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, sweep folders or tables (.csv)")
    parser.add_argument("--out", type=Path, default=Path("figure2"), help="the figure, .png and .pdf (figure2)")
    args = parser.parse_args()
    try:
        table = collect_study(args.folders, RankSwitch.name, RankSwitch.columns)
        paths = draw_figure2(table, args.out)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    cells = figure2_table(table)
    print(figure2_markdown(cells))
    missing = missing_cells(cells)
    print(f"missing: {', '.join(missing)}\n" if missing else "no cell is missing\n")
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()

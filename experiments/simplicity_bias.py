"""The simplicity bias: effective ranks, singular values over time, and pruned accuracies, from the tables of any runs.

python experiments/simplicity_bias.py FOLDER... [--out simplicity_bias]
python experiments/simplicity_bias.py results/simplicity_bias.csv --measures results/simplicity_bias_measures.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lrp.errors import InputError
from lrp.figure.simplicity_bias import draw_simplicity_bias, pruned_markdown, simplicity_markdown
from lrp.results.collect import collect_details, collect_study
from lrp.results.tables import read_table
from lrp.study.simplicity_bias import SimplicityBias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, sweep folders or a table (.csv)")
    parser.add_argument("--measures", type=Path, help="the table of measures, where FOLDER is a table")
    parser.add_argument("--out", type=Path, default=Path("simplicity_bias"), help="the figure, .png and .pdf (simplicity_bias)")
    args = parser.parse_args()
    try:
        table = collect_study(args.folders, SimplicityBias.name, SimplicityBias.columns)
        measures = read_table(args.measures) if args.measures else collect_details(args.folders, SimplicityBias.details)
        paths = draw_simplicity_bias(table, measures, args.out)
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    print(simplicity_markdown(table))
    print(pruned_markdown(table, measures))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()

"""Draw every figure of experiments/results again, from the tables that lie there: .png, and .pdf beside it (which git ignores).

    python experiments/draw.py [NAME...] [--out FOLDER]

NAME: of a file below; all without one. Each is what ``lrp figure`` draws: the words are printed. Nothing is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
from pathlib import Path

from lrp.figure.command import command
from lrp.figure.known import FIGURES

RESULTS = Path(__file__).resolve().parent / "results"
ALDS = "--reference alds_authors_code.csv"
DRAWN = {  # file: the words of ``lrp figure``, the tables by their names
    "figure1": "figure1 figure1.csv",
    "figure2_small": "figure2 figure2_small.csv",
    "figure3_batchnorm": f"figure3 figure3.csv {ALDS} --reference-column accuracy_batchnorm",
    "figure3_no_recovery": f"figure3 figure3.csv {ALDS} --column accuracy_before_recovery",
    "simplicity_bias": "simplicity_bias simplicity_bias.csv --measures simplicity_bias_measures.csv",
    "no_retraining": f"no_retraining no_retraining.csv {ALDS}",
    "no_retraining_resnet20": "no_retraining no_retraining_resnet20.csv",
    "forms": "forms forms.csv no_retraining.csv forms_resnet20.csv no_retraining_resnet20.csv forms_rivals.csv"
    " --times speed_forms_summary.csv",
    "cited": "cited cited.csv",
    "scoring_images": "scoring_images scoring_images.csv",
    "speed_whole": "speed_whole speed_summary.csv",
    "speed_layers": "speed_layers speed_layers.csv",
    "speed_batch": "speed_batch speed_batch.csv",
    "iterative": "iterative iterative.csv",
    "growth": "growth scale.csv",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRAWN)} (all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (experiments/results)")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in DRAWN]:
        parser.error(f"{unknown[0]}: choose of {', '.join(DRAWN)}")
    for name in args.names or DRAWN:
        figure, *words = DRAWN[name].split()
        words = [str(RESULTS / word) if word.endswith(".csv") else word for word in words] + ["--out", str(args.out / name)]
        print("lrp figure", figure, shlex.join(word.replace(f"{Path.cwd()}/", "") for word in words), flush=True)
        with contextlib.redirect_stdout(io.StringIO()):  # the tables, which docs/tables.py writes into the pages
            command(FIGURES[figure], words)


if __name__ == "__main__":
    main()

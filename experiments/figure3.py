"""Figure 3: accuracy against sparsity, from the tables of any runs.

    python experiments/figure3.py FOLDER... [--reference table.csv] [--column accuracy_before_recovery] [--out figure3]

Averages over seeds alone; whatever else differs is a line of its own. Needs nothing but the tables.
"""

from pathlib import Path

from lrp.figure.accuracy import FIGURE
from lrp.figure.command import command

ARGUMENTS = {
    "--reference": {"type": Path, "help": "another system's table: method, sparsity_params or params_kept, accuracy"},
    "--reference-column": {"default": "accuracy", "help": "its column to draw (accuracy)"},
    "--column": {"default": "accuracy", "choices": ["accuracy", "accuracy_before_recovery"], "help": "what to draw (accuracy)"},
    "--title": {"help": "above the figure (the networks and data sets)"},
}

if __name__ == "__main__":
    command(FIGURE, __doc__, ARGUMENTS)

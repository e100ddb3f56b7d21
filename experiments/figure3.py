"""Figure 3: accuracy against sparsity, from the tables of any runs: ``lrp figure figure3``.

    python experiments/figure3.py FOLDER... [--reference table.csv] [--column accuracy_before_recovery] [--out figure3]

Averages over seeds alone; whatever else differs is a line of its own. Needs nothing but the tables.
"""

from lrp.figure.accuracy import FIGURE
from lrp.figure.command import command

if __name__ == "__main__":
    command(FIGURE)

"""Accuracy without a gradient step, a panel for each method: ``lrp figure no_retraining``.

python experiments/no_retraining.py FOLDER... [--reference alds.csv] [--table table.csv] [--out no_retraining]
"""

from lrp.figure.command import command
from lrp.figure.no_retraining import FIGURE

if __name__ == "__main__":
    command(FIGURE)

"""The simplicity bias: effective ranks, singular values over time, and pruned accuracies, from the tables of any runs.

python experiments/simplicity_bias.py FOLDER... [--out simplicity_bias]
python experiments/simplicity_bias.py results/simplicity_bias.csv --measures results/simplicity_bias_measures.csv
"""

from lrp.figure.command import command
from lrp.figure.simplicity_bias import FIGURE

if __name__ == "__main__":
    command(FIGURE)

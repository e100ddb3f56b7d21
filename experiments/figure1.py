"""Figure 1: accuracy by size and rank of the last hidden layer, from the tables of any runs.

    python experiments/figure1.py FOLDER... [--out figure1]

Prints the table in the paper's shape (the paper's values in brackets); writes it as .csv and .md beside the heat maps.
"""

from lrp.figure.command import command
from lrp.figure.figure1 import FIGURE

if __name__ == "__main__":
    command(FIGURE)

"""Figure 2: train at one rank, switch to another, from the tables of any runs; draws what is there and says what is missing.

python experiments/figure2.py FOLDER... [--out figure2]
"""

from lrp.figure.command import command
from lrp.figure.figure2 import FIGURE

if __name__ == "__main__":
    command(FIGURE)

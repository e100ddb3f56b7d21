"""Accuracy with every form, with matrices alone and of rivals: ``lrp figure forms``.

python experiments/forms_figure.py TABLE... [--times speed_forms_summary.csv] [--out forms]
"""

from lrp.figure.command import command
from lrp.figure.forms import FIGURE

if __name__ == "__main__":
    command(FIGURE)

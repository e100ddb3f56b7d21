"""The figures by their names."""

from __future__ import annotations

from lrp.figure import accuracy, figure1, figure2, masks, simplicity_bias
from lrp.figure.base import Figure

_ALL = (figure1.FIGURE, figure2.FIGURE, accuracy.FIGURE, simplicity_bias.FIGURE, masks.AT_INITIALISATION, masks.ITERATIVE)
FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}

"""The figures by their names."""

from __future__ import annotations

from lrp.figure import accuracy, cited, figure1, figure2, forms, growth, masks, no_retraining, scoring, simplicity_bias, speed
from lrp.figure.base import Figure

_ALL = (
    figure1.FIGURE, figure2.FIGURE, accuracy.FIGURE, simplicity_bias.FIGURE, masks.AT_INITIALISATION, masks.ITERATIVE,
    no_retraining.FIGURE, forms.FIGURE, cited.FIGURE, scoring.FIGURE, speed.WHOLE, speed.LAYERS, speed.BATCH, growth.FIGURE,
)  # fmt: skip
FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}

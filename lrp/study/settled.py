"""The simplicity bias of networks that are trained to the end, each at a learning rate of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lrp.compensation.base import Compensation
from lrp.dataset.base import Part
from lrp.errors import InputError, check_float, check_int, check_list
from lrp.method.singular_vectors import SingularVectorsFitted
from lrp.study.job import Cell, Place
from lrp.study.simplicity_bias import SimplicityBias, Training
from lrp.study.training import accuracy, pixels

PATIENCE = 3  # epochs


@dataclass(frozen=True)
class Settled(SimplicityBias):
    """``SimplicityBias``, where neither one rate for all depths nor an early end decides what deep products have learnt.

    Each network is trained at each of ``rates`` until its loss stalls: until the least of the last three epochs is no longer lower than all
    before by the share ``stall``, or for ``epochs``. The one that ends best on the validation images is looked at. The collapsed networks
    are pruned as there, and with ``compensation`` on ``calibration_images`` of the training images as well (``accuracy_compensated`` in
    the table of details).
    """

    columns: ClassVar[tuple[str, ...]] = (
        *SimplicityBias.columns, "rates", "stall", "compensation", "calibration_images", "rate", "epochs_trained",
        "accuracy_compensated_mean",
    )  # fmt: skip

    rates: Sequence[float]
    stall: float
    compensation: Compensation
    calibration_images: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_list("study.rates", self.rates)
        for rate in self.rates:
            check_float("study.rates", rate, above=0)
        check_int("study.calibration_images", self.calibration_images, 1)
        check_float("study.stall", self.stall, above=0, below=1)

    def run(self, cell: Cell, place: Place) -> Any:
        """Train one network; its row and its table of details."""
        row, table = super().run(cell, place)
        words = {name: getattr(self, name) for name in ("stall", "calibration_images")}
        return {**row, "rates": " ".join(map(str, self.rates)), "compensation": self.compensation.name, **words}, table

    def _check_rate(self) -> None:
        if self.lr is not None:
            raise InputError("study.lr", self.lr, "a rate is chosen among study.rates; leave it out")

    def _train(self, cell: Cell, part: Part, place: Place) -> Training:
        reached: dict[float, float] = {}
        best: Training | None = None
        for rate in self.rates:
            training = self._begin(cell, rate, part, place)
            reached[rate] = self._settled(training, cell, part, place)
            if reached[rate] == max(found for found in (*reached.values(), 0.0) if found == found):
                training.found.update(rate=rate, epochs_trained=len(training.losses))
                best = training
        if best is None:
            raise InputError("study.rates", self.rates, "the training diverges at each of them")
        step = best.steps * len(best.losses)
        best.measures += [
            {"measure": "accuracy_tried", "part": "network", "step": step, "index": r, "value": a} for r, a in reached.items()
        ]
        return best

    def _settled(self, training: Training, cell: Cell, part: Part, place: Place) -> float:
        """The accuracy on validation images of a network that is trained until its loss stalls; of one that diverges nan."""
        try:
            while len(training.losses) < self.epochs and not stalled(training.losses, self.stall):
                self._epoch(training, cell, part, place)
        except InputError:
            return math.nan
        return accuracy(training.model, place.data.validation)

    def _fit(self, model: nn.Module, part: Part) -> SingularVectorsFitted:
        device = next(model.parameters()).device
        return self._scored(model, pixels(part.images[: self.calibration_images], device), self.compensation)

    def _pruned(self, fitted: SingularVectorsFitted, test: Part) -> tuple[dict[str, float], dict[str, list[tuple[float, float]]]]:
        found, curves = super()._pruned(fitted, test)
        curve = [(float(s), accuracy(fitted.compress(fitted.plan(float(s)))[0], test)) for s in self.sparsities]
        return {**found, "accuracy_compensated_mean": sum(a for _, a in curve) / len(curve)}, {**curves, "accuracy_compensated": curve}


def stalled(losses: Sequence[float], share: float) -> bool:
    """Whether the last three epochs have not lowered the loss by this share of the least before them, or there is none left."""
    return len(losses) > PATIENCE and not 0 < min(losses[-PATIENCE:]) <= (1 - share) * min(losses[:-PATIENCE])

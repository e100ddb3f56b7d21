"""Pruned before it is trained: a network just initialised is scored, loses most of its weights or ranks, and is then trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd
from torch import nn

from lrp.decomposition.base import Decomposition
from lrp.errors import InputError, check_bool, check_list, check_sparsity
from lrp.scorer.base import Scorer
from lrp.selection.base import Selection
from lrp.study.job import Cell, Place
from lrp.study.pruned import DENSE, MEASURED, SCHEDULE, Pruned, begin, check_shared, measured, prune, sizes
from lrp.study.training import StudySgd, some

MASKS = ("scored", "shuffled")


@dataclass(frozen=True)
class AtInitialisation:
    """Every component of ``network`` just initialised is scored by each of ``scorers``, and what ``selection`` leaves at each of
    ``sparsities`` is trained: weights that stay zero (``decomposition=entries``), or layers held at the rank that is left (``svd``).

    Beside the mask ``scored`` stands ``shuffled``: as many weights in each layer, which ones drawn by the seed; of ranks the same ranks,
    the factors drawn anew by Glorot's initialisation. If it does as well, a score said no more than how much each layer keeps (Frankle et
    al., "Pruning neural networks at initialization: why are we missing the mark?", ICLR 2021). Where ``dense`` is true the whole network
    is trained as well. All trainings have one seed, one order of the images and one schedule (``StudySgd``).

    Scores look at ``scoring_images`` labelled training images, drawn by the seed; batch norm has their statistics then. Biases and batch
    norm are not pruned. Sources: Lee, Ajanthan and Torr, "SNIP", ICLR 2019; Wang, Zhang and Grosse, "GraSP", ICLR 2020.
    """

    name: ClassVar[str] = "at_initialisation"
    keys: ClassVar[tuple[str, ...]] = ("scorer", "sparsity", "mask")
    columns: ClassVar[tuple[str, ...]] = (
        "network", "decomposition", "selection", "scoring_images", "images", "epochs", *SCHEDULE, "scorer", "sparsity", "mask", *MEASURED,
    )  # fmt: skip
    details: ClassVar[str] = "layers.csv"
    uses: ClassVar[tuple[str, ...]] = ()

    network: str
    decomposition: Decomposition
    scorers: Sequence[Scorer]
    selection: Selection
    sparsities: Sequence[float]
    masks: Sequence[str]
    dense: bool
    scoring_images: int
    images: int | None
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        check_shared(self.network, self.scoring_images, self.images)
        for option in ("sparsities", "masks"):
            check_list(f"study.{option}", getattr(self, option))
        for sparsity in self.sparsities:
            check_sparsity("study.sparsities", sparsity)
        for mask in self.masks:
            if mask not in MASKS:
                raise InputError("study.masks", mask, f"choose among {', '.join(MASKS)}")
        check_bool("study.dense", self.dense)
        _ = self.training

    @cached_property
    def training(self) -> StudySgd:
        """The training of each cell."""
        return StudySgd(self.epochs, self.lr, self.momentum, self.weight_decay, self.batch_size)

    def cells(self) -> list[Cell]:
        """One training each: the dense network, then mask by mask."""
        dense = [(DENSE, 0.0, DENSE)] if self.dense else []
        masked = [(scorer.name, sparsity, mask) for scorer in self.scorers for sparsity in self.sparsities for mask in self.masks]
        return [dict(zip(self.keys, cell)) for cell in [*dense, *masked]]

    def run(self, cell: Cell, place: Place) -> tuple[dict[str, Any], pd.DataFrame]:
        """Prune and train one network; its row, and a row for each of its layers."""
        data, part = place.data, some(place.data.train, self.images, "study.images")
        network, layers = self._start(cell, place)
        unfinished = place.folder / "states" / f"{'-'.join(str(cell[key]) for key in self.keys)}.pt"
        loss = self.training(network, data, part, place.seed, unfinished)
        settings = ("network", "scoring_images", "epochs", *SCHEDULE)
        row = {
            **{name: getattr(self, name) for name in settings}, "images": len(part), "decomposition": self.decomposition.name,
            "selection": self.selection.name, **cell, **measured(network, data), "loss": loss, **sizes(layers),
        }  # fmt: skip
        return row, layers

    def finish(self, place: Place) -> None:
        """Nothing is kept of a cell but its rows: each removes its state."""

    def _start(self, cell: Cell, place: Place) -> tuple[nn.Module, pd.DataFrame]:
        """The network of a cell before it is trained, and the table of its layers."""
        scorers = {scorer.name: scorer for scorer in self.scorers}
        model = begin(self.network, place)
        scoring = place.data.calibration(self.scoring_images, place.seed)
        scorer = scorers.get(cell["scorer"], self.scorers[0])  # of the dense network any: all of it stays
        pruned = prune(model, place.data, scoring, self.decomposition, scorer, self.selection, cell["sparsity"])
        return _STARTS[cell["mask"]](pruned, place.seed), pruned.layers()


_STARTS = {DENSE: lambda pruned, seed: pruned.network(), "scored": lambda pruned, seed: pruned.network(), "shuffled": Pruned.shuffled}

"""Magnitude pruning in rounds: train, remove a share of the weights that are left, train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd
from torch import nn

from lrp.decomposition.entries import Entries
from lrp.deploy.unfold import unfold
from lrp.entries import read_state, write_state
from lrp.errors import check_float, check_int
from lrp.files import sha256
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import load_state
from lrp.scorer.base import Scorer
from lrp.selection.base import Selection
from lrp.study.job import Cell, Place
from lrp.study.pruned import DENSE, MEASURED, SCHEDULE, begin, check_shared, measured, prune, sizes
from lrp.study.training import StudySgd, some
from lrp.training import computed_by


@dataclass(frozen=True)
class Iterative:
    """``network`` is trained for ``epochs``; then in each of ``rounds`` the ``share`` of the weights that are left with the lowest scores
    goes, as each of ``scorers`` and ``selections`` says, and what stays is trained on for ``round_epochs``, with a learning rate that
    rises and falls again.

    The schedule of Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning" (LAMP), ICLR 2021, section 4, and its rivals:
    ``scorers=[lamp] selections=[global]`` is LAMP, ``[magnitude]`` with ``global``, ``uniform``, ``uniform_plus`` and ``erk`` are the
    others. Inside a layer LAMP's order is that of magnitude, so that with an allocation by layers both are the same. The paper trains by
    AdamW and for longer. Scores of these scorers need no images; others look at ``scoring_images``, drawn by the seed.

    A row is a round. Each round's network is looked at on the test images, since each is a result of its own; nothing is chosen by it.
    """

    name: ClassVar[str] = "iterative"
    keys: ClassVar[tuple[str, ...]] = ("scorer", "selection", "round")
    columns: ClassVar[tuple[str, ...]] = (
        "network", "scoring_images", "images", "share", "epochs", "round_epochs", *SCHEDULE, "scorer", "selection", "round", *MEASURED,
    )  # fmt: skip
    details: ClassVar[str] = "layers.csv"
    uses: ClassVar[tuple[str, ...]] = ()

    network: str
    scorers: Sequence[Scorer]
    selections: Sequence[Selection]
    share: float
    rounds: int
    scoring_images: int
    images: int | None
    epochs: int
    round_epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        check_shared(self.network, self.scoring_images, self.images)
        check_float("study.share", self.share, above=0, below=1)
        check_int("study.rounds", self.rounds, 1)
        check_int("study.round_epochs", self.round_epochs, 1)
        _ = self.trainings

    @cached_property
    def trainings(self) -> tuple[StudySgd, StudySgd]:
        """The first training, and that of each round."""
        more = (self.lr, self.momentum, self.weight_decay, self.batch_size)
        return StudySgd(self.epochs, *more), StudySgd(self.round_epochs, *more)

    def cells(self) -> list[Cell]:
        """The dense network, which all share, then each pair of a scorer and a selection, round by round."""
        pairs = [(scorer.name, selection.name) for scorer in self.scorers for selection in self.selections]
        rounds = [(*pair, number) for pair in pairs for number in range(1, self.rounds + 1)]
        return [dict(zip(self.keys, cell)) for cell in [(DENSE, DENSE, 0), *rounds]]

    def run(self, cell: Cell, place: Place) -> tuple[dict[str, Any], pd.DataFrame]:
        """The network after one round; its row, and a row for each of its layers."""
        network, found = self._after(cell["scorer"], cell["selection"], cell["round"], place)
        layers = pd.DataFrame(found["layers"])
        settings = ("network", "scoring_images", "share", "epochs", "round_epochs", *SCHEDULE)
        row = {
            **{name: getattr(self, name) for name in settings}, "images": len(self._part(place)), **cell, **measured(network, place.data),
            "loss": found["loss"], **sizes(layers),
        }  # fmt: skip
        return row, layers

    def finish(self, place: Place) -> None:
        """Remove the states of a job that is done."""
        for file in (place.folder / "states").glob("*-latest.pt"):
            file.unlink()

    def sparsity(self, number: int) -> float:
        """The share of all weights that is gone after so many rounds."""
        return 1 - (1 - self.share) ** number

    def _part(self, place: Place) -> Any:
        return some(place.data.train, self.images, "study.images")

    def _after(self, scorer: str, selection: str, number: int, place: Place) -> tuple[nn.Module, dict[str, Any]]:
        """The network after a round, as plain layers with zeros, and what is stored of it: from the state of that round, or made from the
        round before."""
        network, file = begin(self.network, place), place.folder / "states" / f"{scorer}-{selection}-latest.pt"
        made_from = self._made_from(scorer, selection, place)
        found = read_state(file, made_from)
        if found is not None and found["round"] == number:
            load_state(network, found["model"])
            return network, found
        if number == 0:
            pruned = prune(network, place.data, self._scoring(place), Entries(), self.scorers[0], self.selections[0], 0.0)
            training, layers = self.trainings[0], pruned.layers()
        else:
            first = number == 1
            network, _ = self._after(DENSE if first else scorer, DENSE if first else selection, number - 1, place)
            parts = next((s, t) for s in self.scorers for t in self.selections if (s.name, t.name) == (scorer, selection))
            pruned = prune(network, place.data, self._scoring(place), Entries(), *parts, self.sparsity(number))
            training, layers, network = self.trainings[1], pruned.layers(), pruned.network()
        unfinished = file.with_name(f"{scorer}-{selection}-{number}.pt")
        seed = place.seed + 1000 * number  # another order of the images in each round
        loss = training(network, place.data, self._part(place), seed, unfinished)
        if any(isinstance(module, Compressed) for module in network.modules()):
            network = unfold(network)
        found = {"round": number, "model": network.state_dict(), "loss": loss, "layers": layers.to_dict("records")}
        write_state(file, found, made_from)
        return network, found

    def _scoring(self, place: Place) -> Any:
        return place.data.calibration(self.scoring_images, place.seed)

    def _made_from(self, scorer: str, selection: str, place: Place) -> str:
        """Hash of all that the states of a scorer and a selection depend on; how many rounds there are is not among that."""
        trainings = [training.identity for training in self.trainings]
        options = [self.network, str(self.share), str(self.scoring_images), str(self.images), scorer, selection, str(place.seed)]
        parts = [repr(part) for part in (*self.scorers, *self.selections) if part.name in (scorer, selection)]  # with their options
        return sha256(["iterative", *options, *parts, *trainings, computed_by(place.device), place.data.fingerprint()])

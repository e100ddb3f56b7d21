"""Why does a start at rank 14 cost accuracy in the small setting of figure 2? One change at a time.

    python experiments/rank14.py --data $DATA --out experiments/results/rank14.csv

``experiment=figure2_small`` trains at rank 14 for five epochs and goes on with one dense matrix: two factors at the start, a rank, and
Adam begun anew at the switch. Here each of these is there without the others. What that experiment has trained (dense throughout, and
rank 14 until epoch 5) is read from its table, and the first epochs of it that are trained again must be the same. Rows that the table
has are not computed again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from kept_rows import KeptRows
from torch import nn

from lrp.config.build import compose_job
from lrp.layer.base import LowRank
from lrp.layer.hold_rank import hold_rank
from lrp.study.job import Place
from lrp.study.networks import SwitchNet
from lrp.study.rank_switch import RankSwitch, State

SWITCH = 5
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Apart(RankSwitch):
    """A rank switch whose parts can be changed.

    Attributes:
        start: Of the hidden layer: two Glorot factors; the ``svd`` of the dense Glorot matrix; the ``product`` of two Glorot factors,
            held as a dense matrix from the first step on.
        adam: At the switch: begun ``anew``, or it ``goes on`` with its moments of all parameters but the new matrix's.
    """

    start: str = "glorot"
    adam: str = "anew"

    def _network(self, rank: int, place: Place) -> nn.Module:
        if self.start == "glorot":
            return super()._network(rank, place)
        torch.manual_seed(place.seed)
        model = SwitchNet(place.data.channels, place.data.num_classes, self.width)
        generator = torch.Generator().manual_seed(place.seed)
        if self.start == "svd":  # of the matrix that the dense network starts from
            hold_rank(model, {"hidden": -1}, "glorot", generator)
        else:
            hold_rank(model, {"hidden": rank}, "glorot", generator)
        hidden = model.hidden
        assert isinstance(hidden, LowRank)
        hidden.set_rank(rank if self.start == "svd" else -1, "svd", generator)
        return model.to(place.device).to(memory_format=torch.channels_last)

    def _switch(self, state: State, rank: int, place: Place) -> None:
        before = state.optimizer
        super()._switch(state, rank, place)
        if self.adam == "goes on":
            state.optimizer.state.update({p: before.state[p] for p in state.model.parameters() if p in before.state})


@dataclass(frozen=True)
class Setting:
    """What is trained: at ``rank``, then from the epoch ``switch`` on as one dense matrix (0: no switch)."""

    rank: int
    switch: int = SWITCH
    start: str = "glorot"
    adam: str = "anew"


SETTINGS = {
    "dense throughout, Adam begun anew": Setting(-1),
    "dense from the product of two factors of rank 14": Setting(14, switch=0, start="product"),
    "two factors of full rank, then dense": Setting(64),
    "rank 14 from two factors, then dense, Adam goes on": Setting(14, adam="goes on"),
    "rank 14 from the SVD of the dense start, then dense": Setting(14, start="svd"),
    "rank 14 from the SVD of the dense start, then dense, Adam goes on": Setting(14, start="svd", adam="goes on"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    job = compose_job("experiment=figure2_small", f"dataset.path={args.data}", "tracker=none")
    data, study = job.dataset.load(), job.study
    made_before = {name: getattr(study, name) for name in ("width", "images", "epochs", "batch_size", "lr", "grow")}
    epochs = pd.read_csv(RESULTS / "figure2_small_epochs.csv")
    rows = KeptRows(args.out)
    for seed in (0, 1, 2):
        for name, setting in SETTINGS.items():
            if rows.has(setting=name, seed=seed):
                continue
            apart = Apart([setting.rank], [-1], [SWITCH], **made_before, start=setting.start, adam=setting.adam)
            with TemporaryDirectory() as folder:
                cell = {"rank_before": setting.rank, "rank_after": -1, "switch_epoch": setting.switch}
                row, history = apart.run(cell, Place(data, seed, torch.device("cpu"), Path(folder)))
            if setting.start == "glorot" and setting.rank in (14, -1):
                old = epochs[(epochs["seed"] == seed) & (epochs["rank_before"] == setting.rank) & (epochs["switch_epoch"] == 0)]
                differ = (old["accuracy"].to_numpy()[:SWITCH] - history["accuracy"].to_numpy()[:SWITCH]).round(4).tolist()
                print(f"accuracies of the first epochs, less those of the table: {differ}", flush=True)
            rows.add([{"setting": name, "seed": seed, "start": setting.start, "adam": setting.adam, **row}])
            print(f"{100 * row['accuracy']:.1f} % with seed {seed}: {name}", flush=True)


if __name__ == "__main__":
    main()

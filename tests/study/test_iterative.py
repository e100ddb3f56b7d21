"""Pruning in rounds: how much is left of which layer, that removed weights stay so, and going on after a kill."""

import pytest
import torch
from helpers import refused, study_place
from torch import nn

from lrp.scorer.lamp import Lamp
from lrp.scorer.magnitude import Magnitude
from lrp.selection.global_ import GlobalSelection
from lrp.selection.uniform import UniformSelection
from lrp.study import networks
from lrp.study.iterative import Iterative


class Tiny(nn.Sequential):
    """Two Linear layers on every fourth pixel."""

    def __init__(self, in_channels, num_classes):
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64 * in_channels, 20), nn.ReLU(), nn.Linear(20, num_classes))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", Tiny)


def study(**options):
    usual = {
        "network": "tiny", "scorers": [Magnitude()], "selections": [GlobalSelection(), UniformSelection()], "share": 0.5, "rounds": 3,
        "scoring_images": 16, "images": 64, "epochs": 1, "round_epochs": 1, "batch_size": 16, "lr": 0.05, "momentum": 0.9,
        "weight_decay": 0.01,
    }  # fmt: skip
    return Iterative(**(usual | options))


def test_each_round_removes_its_share_for_good(data, tmp_path):
    asked, place = study(), study_place(data, tmp_path)
    cells = asked.cells()
    assert [tuple(cell.values()) for cell in cells][:3] == [("dense", "dense", 0), ("magnitude", "global", 1), ("magnitude", "global", 2)]
    rows, zeros = [], {}
    for cell in cells:
        row, layers = asked.run(cell, place)
        rows.append(row)
        network, _ = asked._after(cell["scorer"], cell["selection"], cell["round"], place)
        held = torch.cat([p.flatten() for name, p in network.named_parameters() if name.endswith("weight")]) == 0
        assert set(row) == set(asked.columns) and int((~held).sum()) == row["kept"] == layers["kept"].sum()
        key = (cell["selection"], cell["round"] - 1)
        assert key not in zeros or bool((held | ~zeros[key]).all()), "what is gone stays gone"
        zeros[cell["selection"], cell["round"]] = held
        if cell["selection"] == "uniform":
            assert (layers["kept"] == (layers["weights"] * 0.5 ** cell["round"]).astype(int)).all()
    total = rows[0]["weights"]
    assert [row["kept"] for row in rows[:4]] == [total, total // 2, total // 4, total // 8]
    asked.finish(place)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_killed_job_goes_on_with_the_same(data, tmp_path):
    """Each cell alone, its states there or not, gives what the whole job gives."""
    asked, place = study(selections=[GlobalSelection()]), study_place(data, tmp_path / "whole")
    whole = [asked.run(cell, place)[0] for cell in asked.cells()]
    alone = asked.run(asked.cells()[2], study_place(data, tmp_path / "alone"))[0]
    assert alone == whole[2]
    assert asked.run(asked.cells()[3], place)[0] == whole[3], "a state that is there already"
    assert asked.run(asked.cells()[2], place)[0] == whole[2], "a state that is too far"


def test_lamp_orders_a_layer_as_magnitude_does(data, tmp_path):
    """So that with the same share in each layer they are one."""
    rows = []
    for number, scorer in enumerate((Lamp(), Magnitude())):
        asked = study(scorers=[scorer], selections=[UniformSelection()], rounds=1)
        rows.append(asked.run(asked.cells()[1], study_place(data, tmp_path / str(number)))[0] | {"scorer": ""})
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 1}, ["study.share=1"]),
        ({"rounds": 0}, ["study.rounds=0"]),
        ({"round_epochs": 0}, ["study.round_epochs=0"]),
        ({"network": "tinier"}, ["study.network=tinier"]),
    ],
)
def test_refuses(options, words):
    refused(lambda: study(**options), *words)


def test_states_know_the_options_of_their_parts(data, tmp_path):
    place = study_place(data, tmp_path)
    keys = [
        study(selections=[GlobalSelection(per_parameter=each)])._made_from("magnitude", "global", place) for each in (False, True, False)
    ]
    assert keys[0] == keys[2] != keys[1]

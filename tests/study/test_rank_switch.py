"""The study of a switch of ranks against a plain loop, after kills and with damaged states."""

import dataclasses

import pytest
import torch
from helpers import SEED, refused, study_place
from torch.nn import functional as F

from lrp.layer.hold_rank import at_rank
from lrp.study import rank_switch
from lrp.study.networks import SwitchNet
from lrp.study.rank_switch import RankSwitch

pytestmark = pytest.mark.slow

LR, EPOCHS = 0.01, 3
CELL = {"rank_before": 2, "rank_after": -1, "switch_epoch": 2}


def switch_study(**options):
    ranks = {"train_ranks": [2], "switch_ranks": [-1], "switch_epochs": [1, 2]}
    return RankSwitch(**(ranks | {"width": 1 / 64, "images": 128, "epochs": EPOCHS, "batch_size": 32, "lr": LR} | options))


def plain_loop(data, before, after, switch):
    """(accuracies, losses, the accuracy right after the switch), written without the study's parts."""
    index = torch.cat([data.train.index, data.validation.index])
    images = torch.cat([data.train.images, data.validation.images])[index.argsort()]
    labels = torch.cat([data.train.labels, data.validation.labels])[index.argsort()]
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:128]
    images, labels = images[chosen], labels[chosen]

    def prepared(batch):
        return (batch.float() / 255).contiguous(memory_format=torch.channels_last)

    def test():
        with torch.no_grad():
            return float((model(prepared(data.test.images)).argmax(1) == data.test.labels).double().mean())

    torch.manual_seed(SEED)
    model = SwitchNet(3, 10, 1 / 64)
    model.hidden = at_rank(model.hidden, before, "glorot", torch.Generator().manual_seed(SEED))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), LR)
    accuracies, losses, at_switch = [], [], None
    for epoch in range(EPOCHS):
        if switch and epoch == switch:
            model.hidden.set_rank(after, "svd")
            optimizer = torch.optim.Adam(model.parameters(), LR)
            at_switch = test()
        total = 0.0
        for batch in torch.randperm(128, generator=torch.Generator().manual_seed(1_000_003 * SEED + epoch)).split(32):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(prepared(images[batch])), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / 128)
        accuracies.append(test())
    return accuracies, losses, at_switch


@pytest.fixture(scope="module")
def expected(data):
    torch.manual_seed(0)
    return plain_loop(data, 2, -1, 2)


def same(found, expected):
    row, details = found
    accuracies, losses, at_switch = expected
    assert list(details["accuracy"]) == accuracies and list(details["loss"]) == losses  # bit for bit
    assert list(details["epoch"]) == [1, 2, 3]
    assert (row["accuracy"], row["loss"], row["accuracy_at_switch"]) == (accuracies[-1], losses[-1], at_switch)
    switch = row["switch_epoch"]
    assert row["accuracy_best_after_switch"] == max(accuracies[switch:])
    assert row["accuracy_before_switch"] == (accuracies[switch - 1] if switch else None)


def test_branches_are_plain_trainings(data, expected, tmp_path):
    """All cells in one folder, which share what was trained before the switch, and each in a folder of its own."""
    study, shared = switch_study(), study_place(data, tmp_path / "shared")
    cells = study.cells()
    assert [tuple(cell.values()) for cell in cells] == [(2, 2, 0), (2, -1, 1), (2, -1, 2)]
    losses = []
    for i, cell in enumerate(cells):
        plain = expected if cell == CELL else plain_loop(data, *cell.values())
        for folder in (shared, study_place(data, tmp_path / str(i))):
            row, details = study.run(cell, folder)
            same((row, details), plain)
            assert row["units"] == 4 and row["params_hidden"] == (2 * (32 + 4) if cell["rank_after"] == 2 else 32 * 4) + 4
        losses.append(plain[1])
    assert losses[0][:2] == losses[2][:2] and losses[0][2] != losses[2][2]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]  # the switch does something
    study.finish(shared)
    assert not list(shared.folder.rglob("*.pt"))


def test_what_is_stored_is_used(data, tmp_path, monkeypatch):
    """The second cell trains only what comes after its switch."""
    study, here, epochs = switch_study(), study_place(data, tmp_path), []
    real = rank_switch.train_epoch

    def counted(model, part, optimizer, batch_size, seed, epoch, progress):
        epochs.append(epoch)
        return real(model, part, optimizer, batch_size, seed, epoch, progress)

    monkeypatch.setattr(rank_switch, "train_epoch", counted)
    for cell in study.cells():
        study.run(cell, here)
    assert epochs == [0, 1, 2, 1, 2, 2]


@pytest.mark.parametrize("keep", ["rank2-latest.pt", "rank2-epoch1.pt", "rank2-epoch2.pt", "nothing"])
def test_a_killed_job_goes_on(keep, data, expected, tmp_path):
    """Whatever one state is left, the result is the same."""
    study, here = switch_study(), study_place(data, tmp_path)
    study.run({**CELL, "switch_epoch": 1}, here)
    study.run(CELL, here)
    files = {file.name for file in tmp_path.rglob("*.pt")}
    assert files == {"rank2-latest.pt", "rank2-epoch1.pt", "rank2-epoch2.pt"}
    for file in tmp_path.rglob("*.pt"):
        if file.name != keep:
            file.unlink()
    same(study.run(CELL, here), expected)


@pytest.mark.parametrize("how", ["truncated", "empty", "noise"])
@pytest.mark.parametrize("name", ["rank2-latest.pt", "rank2-epoch2.pt", "*.pt"])
def test_damaged_states_cost_only_time(name, how, data, expected, tmp_path):
    study, here = switch_study(), study_place(data, tmp_path)
    study._prefix(2, 2, rank_switch.some(data.undivided(), 128, "study.images"), here)
    files = list((tmp_path / "states").glob(name))
    assert files
    for file in files:
        content = file.read_bytes()
        file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "noise": bytes(range(256)) * 20}[how])
    same(study.run(CELL, here), expected)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_kill_in_any_epoch(at, data, expected, tmp_path, monkeypatch):
    study, here, real = switch_study(), study_place(data, tmp_path), rank_switch.train_epoch

    def killed(model, part, optimizer, batch_size, seed, epoch, progress):
        loss = real(model, part, optimizer, batch_size, seed, epoch, progress)
        if epoch == at:
            raise KeyboardInterrupt
        return loss

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rank_switch, "train_epoch", killed)
        study.run(CELL, here)
    same(study.run(CELL, here), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"switch_epochs": [1, 3]}, ["study.switch_epochs=3", "study.epochs=3"]),
        ({"switch_epochs": [4]}, ["study.switch_epochs=4"]),
        ({"switch_epochs": [0]}, ["study.switch_epochs=0"]),
        ({"switch_epochs": [1.5]}, ["study.switch_epochs=1.5"]),
        ({"switch_epochs": [1, 1]}, ["study.switch_epochs=[1, 1]", "appears once"]),
        ({"switch_epochs": 1}, ["study.switch_epochs=1"]),
        ({"train_ranks": []}, ["study.train_ranks=[]"]),
        ({"train_ranks": [0]}, ["study.train_ranks=0", "from 1 to 4"]),
        ({"train_ranks": [5]}, ["study.train_ranks=5", "from 1 to 4"]),
        ({"switch_ranks": [-2]}, ["study.switch_ranks=-2"]),
        ({"switch_ranks": [True]}, ["study.switch_ranks=True"]),
        ({"switch_ranks": [2.0]}, ["study.switch_ranks=2.0"]),
        ({"grow": "foo"}, ["study.grow=foo"]),
        ({"width": 0}, ["study.width=0"]),
        ({"lr": 0}, ["study.lr=0"]),
        ({"images": 0}, ["study.images=0"]),
        ({"batch_size": 0}, ["study.batch_size=0"]),
    ],
)
def test_rank_switch_refuses(options, words):
    refused(lambda: switch_study(**options), *words)


def test_too_many_images_are_refused(data, tmp_path):
    refused(lambda: switch_study(images=161).run(CELL, study_place(data, tmp_path)), "study.images=161", "160")


@pytest.mark.parametrize("change", [{"lr": 0.02}, {"batch_size": 16}, {"images": 100}, "seed", "labels", "threads"])
def test_states_of_another_training_are_not_taken(change, data, tmp_path, caplog, monkeypatch):
    """Whatever of a killed job lies in a folder: the rows are those of a folder of its own."""
    study, here, there = switch_study(), study_place(data, tmp_path / "here"), study_place(data, tmp_path / "there")
    study._prefix(2, 2, rank_switch.some(data.undivided(), 128, "study.images"), here)
    if isinstance(change, dict):
        study = dataclasses.replace(study, **change)
    elif change == "seed":
        here, there = (dataclasses.replace(place, seed=7) for place in (here, there))
    elif change == "labels":
        other = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=data.train.labels.flip(0)))
        here, there = (dataclasses.replace(place, data=other) for place in (here, there))
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # two that run would wait for each other on a busy machine
    (row, details), (same_row, same_details) = study.run(CELL, here), study.run(CELL, there)
    assert "made with other settings" in caplog.text and row == same_row and details.equals(same_details)

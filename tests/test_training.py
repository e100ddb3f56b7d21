"""Training that goes on after a kill."""

import pytest
import torch
from helpers import one_channel_vgg

from lrp.epochs import listening
from lrp.errors import InputError
from lrp.training import Training

pytestmark = pytest.mark.slow


def test_training_resumes_bit_for_bit(tmp_path, tiny, monkeypatch):
    spec = Training(epochs=3, lr=0.05, batch_size=32)

    def train(file):
        torch.manual_seed(0)
        model = one_channel_vgg()
        spec(model, tiny, 5, file)
        return model.state_dict()

    whole = train(tmp_path / "whole.pt")
    real, calls = Training._epoch, []

    def dies_in_third(self, *args):
        calls.append(args[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Training, "_epoch", dies_in_third)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed.pt")
    resumed = train(tmp_path / "killed.pt")
    assert calls == [0, 1, 2, 2]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_momentum_swings_around_what_is_asked(tmp_path, tiny, monkeypatch):
    seen = []
    real = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *args: (seen.append(self.param_groups[0]["momentum"]), real(self, *args))[1])
    for momentum in (0.9, 0.8):
        seen.clear()
        Training(epochs=2, lr=0.05, batch_size=32, momentum=momentum)(one_channel_vgg(), tiny, 0, tmp_path / f"{momentum}.pt")
        assert abs(seen[0] - momentum - 0.05) < 1e-9 and min(seen) >= momentum - 0.05 - 1e-9 and min(seen) < momentum - 0.03
    assert "swing" not in Training().identity and "swing" in Training(momentum=0.8).identity
    with pytest.raises(InputError, match="^model.training.momentum=0.95: must be a number greater than 0.05 and less than 0.95$"):
        Training(momentum=0.95)


def test_divergence_is_a_sentence(tmp_path, tiny):
    with pytest.raises(InputError, match="model.training.lr=1e.*diverged"):
        Training(epochs=1, lr=1e30, batch_size=32)(one_channel_vgg(), tiny, 0, tmp_path / "x.pt")


def test_epochs_are_told_as_they_come_and_again_after_a_kill(tmp_path, tiny, monkeypatch):
    real, told = Training._epoch, []
    train = lambda: Training(epochs=3, lr=0.05, batch_size=32)(one_channel_vgg(), tiny, 0, tmp_path / "x.pt")  # noqa: E731

    def dies_in_third(self, *args):
        if args[-1] == 2 and len(told) == 2:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Training, "_epoch", dies_in_third)
    with listening(told.append):
        with pytest.raises(KeyboardInterrupt):
            train()
        assert [epoch["epoch"] for epoch in told] == [1, 2]
        told.append({"epoch": 0})  # so that it goes on
        history = train()
    assert [epoch["epoch"] for epoch in told] == [1, 2, 0, 1, 2, 3] and told[3:] == history
    train()  # nobody listens any more
    assert len(told) == 6

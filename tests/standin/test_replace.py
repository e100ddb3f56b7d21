"""Stand-ins in networks and in files."""

import copy

import pytest
import torch
from deployed import described, rewrite
from torch import nn

import lrp
from lrp.standin.known import KINDS, NAMED
from lrp.standin.replace import put_back, stand_ins, with_stand_ins


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.embed(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.fixture
def net():
    return Net().eval(), torch.randn(40, 5, 6)


def test_names_are_unique():
    assert len(NAMED) == len(KINDS)


def test_the_network_is_not_touched(net):
    model, _ = net
    before = copy.deepcopy(model.state_dict())
    other = with_stand_ins(model)
    assert stand_ins(other) == {"attention": "MultiheadAttention"} and stand_ins(model) == {}
    assert type(model.attention) is nn.MultiheadAttention and other.head.weight is model.head.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert with_stand_ins(plain) is plain


def test_modes_and_hooks_are_carried_over(net):
    model, x = net
    calls = []
    model.attention.train().register_forward_hook(lambda *_: calls.append(1))
    other = with_stand_ins(model)
    other(x)
    assert other.attention.training and other.attention.q_proj.training and not other.head.training and calls == [1]


def test_a_module_that_ties_its_weight_stays(net):
    model, _ = net
    model.tied = nn.Linear(16, 48)
    model.tied.weight = model.attention.in_proj_weight
    assert stand_ins(with_stand_ins(model)) == {"attention.out_proj": "subclass"}


def test_a_module_with_a_forward_of_its_own_stays(net):
    model, _ = net
    model.attention.forward = lambda *args, **_: (args[0], None)
    assert "attention" not in stand_ins(with_stand_ins(model))


def test_what_did_not_change_is_put_back(net):
    model, x = net
    other = copy.deepcopy(with_stand_ins(model))
    assert type(put_back(other, model).attention) is nn.MultiheadAttention
    changed = copy.deepcopy(with_stand_ins(model))
    with torch.no_grad():
        changed.attention.k_proj.weight[0, 0] += 1
    assert stand_ins(put_back(changed, model)) == {"attention": "MultiheadAttention"}
    kept, report = lrp.compress(model, x, 0.3, exclude=["attention"])
    assert type(kept.attention) is nn.MultiheadAttention and "attention.q_proj" in set(report.layer)


def test_encoders_open_their_short_cut_again():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1).eval()
    assert put_back(copy.deepcopy(with_stand_ins(encoder)), encoder).use_nested_tensor


def test_a_tie_stays_where_the_module_is_put_back():
    class Named(nn.Linear):
        pass

    model = nn.Sequential(Named(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    back = put_back(copy.deepcopy(with_stand_ins(model)), model)
    assert type(back[0]) is Named and back[0].weight is back[1].weight


def test_files_say_what_stands_for_what(net, tmp_path):
    model, x = net
    compressed, _ = lrp.compress(model, x, 0.5)
    lrp.save(compressed, tmp_path / "a.safetensors")
    description = described(tmp_path / "a.safetensors")[0]
    assert description["stand_ins"] == {"attention": "MultiheadAttention"} and description["format"] == 3
    skeleton = Net()
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", nn.DataParallel(skeleton)).module(x), compressed(x))
    assert type(skeleton.attention) is nn.MultiheadAttention
    lrp.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "b.safetensors")
    assert "stand_ins" not in described(tmp_path / "b.safetensors")[0]


@pytest.mark.parametrize("stand_ins, match", [
    ({"attention": "of tomorrow"}, "attention stands for a of tomorrow, and this version knows .*MultiheadAttention"),
    ({"attention": 3}, "attention stands for a 3"),
    ({"head": "MultiheadAttention"}, "another architecture.*a MultiheadAttention head, this one a Linear"),
    ({"none": "recurrent"}, "another architecture.*a recurrent none, this one lacks it"),
    ([], "damaged"),
    ({"attention": []}, "damaged"),
])  # fmt: skip
def test_other_files_are_refused(net, tmp_path, stand_ins, match):
    model, x = net
    file = tmp_path / "a.safetensors"
    lrp.save(lrp.compress(model, x, 0.5)[0], file)
    rewrite(file, lambda description, _: description.update(stand_ins=stand_ins))
    with pytest.raises(lrp.InputError, match=match):
        lrp.load(file, Net)

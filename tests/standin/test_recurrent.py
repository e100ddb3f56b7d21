"""Recurrent networks made of Linear layers compute what torch's do."""

import copy
import itertools

import pytest
import torch
from helpers import BLOCKINGS
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lrp
from lrp.decomposition.base import decompose
from lrp.layer.build import build, find_kind, layer_matrices, replace_layer
from lrp.layer.compressed import Compressed
from lrp.layer.pivoted import PivotedLinear
from lrp.partition import cut
from lrp.standin import recurrent
from lrp.standin.recurrent import CELLS, RecurrentNetwork
from lrp.standin.replace import with_stand_ins

B, L, N, H = 3, 6, 4, 5
KINDS = {
    "LSTM": (nn.LSTM, {}), "projected LSTM": (nn.LSTM, {"proj_size": 3}), "GRU": (nn.GRU, {}), "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
}  # fmt: skip
FORMS = {
    "a batch": lambda x, first: x,
    "one sequence": lambda x, first: x[0] if first else x[:, 0],
    "sorted": lambda x, first: pack_padded_sequence(x, [6, 4, 1], batch_first=first),
    "packed": lambda x, first: pack_padded_sequence(x, [2, 6, 3], batch_first=first, enforce_sorted=False),
}


def heard(network):
    """A copy of which something listens to every layer, so that it runs step by step."""
    network = copy.deepcopy(network)
    for layer in [module for module in network.modules() if find_kind(module) is not None]:
        layer.register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_outputs_states_and_gradients(kind, form):
    make, options = KINDS[kind]
    for layers, both, first, bias in itertools.product([1, 2], [False, True], [False, True], [False, True]):
        given = bias == both  # a state at the beginning
        dense = make(N, H, layers, bias=bias, batch_first=first, bidirectional=both, **options).double()
        other = with_stand_ins(dense)
        assert isinstance(other, RecurrentNetwork)
        x = torch.randn(B, L, N).double() if first else torch.randn(L, B, N).double()
        widths = [options.get("proj_size", H), *[H] * (make is nn.LSTM)]
        states = [torch.randn(layers * (1 + both), B, width).double() for width in widths]
        states = [state[:, 0] for state in states] if form == "one sequence" else states
        found = []
        for network in (dense, other, heard(other)):
            leaf = x.clone().requires_grad_()
            hx = (tuple(states) if make is nn.LSTM else states[0],) if given else ()
            output, ends = network(FORMS[form](leaf, first), *hx)
            results = [output.data if isinstance(output, nn.utils.rnn.PackedSequence) else output]
            results += ends if make is nn.LSTM else [ends]
            found.append([*results, *torch.autograd.grad(sum(result.sin().sum() for result in results), leaf)])
        for ours in found[1:]:
            assert [value.shape for value in ours] == [value.shape for value in found[0]]
            assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, found[0], strict=True)), (layers, both, first, bias)


def test_gradients_of_the_matrices():
    dense = nn.LSTM(N, H, bidirectional=True).double()
    other = with_stand_ins(dense)
    for network in (dense, other):
        network(torch.ones(L, B, N).double())[0].square().sum().backward()
    assert torch.allclose(other.l0.state.weight.grad, dense.weight_hh_l0.grad)
    assert torch.allclose(other.l0_reverse.input.bias.grad, dense.bias_ih_l0_reverse.grad)


def test_the_kernel_runs_unless_somebody_listens_or_the_factors_cost_less(monkeypatch):
    ran = []
    for cell in CELLS.values():
        monkeypatch.setattr(cell, "step", lambda self, read, state, of=cell.step: ran.append(self) or of(self, read, state))
    network = compressed_network(nn.GRU, "none")
    x = torch.randn(L, B, 12)
    network(x)
    assert not ran
    heard(network)(x)
    assert len(ran) == L
    monkeypatch.setattr(recurrent, "STEP", 0)
    network(x)
    assert len(ran) == 2 * L
    monkeypatch.undo()
    example, network.l0.state.forward = torch.randn(L, B, 12), lambda h: network.l0.state.bias.expand(B, -1)  # of another's own
    assert torch.allclose(network(example)[0], heard(network)(example)[0])


def compressed_network(kind, how, **options):
    """A recurrent network with its layers in a form, or of low rank in the blocks of a blocking."""
    torch.manual_seed(0)
    dense = with_stand_ins(kind(12, 16, **options))
    if how != "pivoted":
        matrices = layer_matrices(dense)
        factors = decompose(matrices, cut(BLOCKINGS[how], matrices))
        return build(dense, factors, [torch.arange(f.block.rank) < (99 if f.block.is_dense(1) else 1) for f in factors])
    for name, layer in [(name, module) for name, module in dense.named_modules() if type(module) is nn.Linear]:
        pivoted = PivotedLinear(layer, 3)
        pivoted.set_pair(torch.randn(pivoted.rows, 3), torch.randn(3, pivoted.columns))
        dense = replace_layer(dense, name, pivoted)
    return dense


@pytest.mark.parametrize("how", ["none", "alds", "square", "pivoted"])
def test_a_compressed_network_gives_in_the_kernel_what_it_gives_step_by_step(how):
    for kind, options in ((nn.LSTM, {"bidirectional": True}), (nn.LSTM, {"proj_size": 7}), (nn.GRU, {"bias": False}), (nn.RNN, {})):
        network = compressed_network(kind, how, **options).double()
        assert any(isinstance(module, Compressed) for module in network.modules())
        x = pack_padded_sequence(torch.randn(L, 3, 12).double(), [2, 6, 3], enforce_sorted=False)
        found = []
        for other in (network, heard(network)):
            output, ends = other(x)
            loss = output.data.sin().sum() + sum(end.square().sum() for end in (ends if kind is nn.LSTM else [ends]))
            found.append([output.data, *torch.autograd.grad(loss, [*other.parameters()])])  # every factor gets its gradient
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))


def test_dropout_between_layers():
    network = with_stand_ins(nn.GRU(N, H, 2, dropout=0.9))
    x = torch.randn(L, B, N)
    assert not torch.equal(network(x)[0], network(x)[0]) and torch.equal(network.eval()(x)[0], network(x)[0])


@pytest.mark.long
def test_what_reads_the_inputs_is_compressed(tmp_path):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(12, 16, bidirectional=True), nn.Linear(32, 3)

        def forward(self, x):  # (B, L, N), though the LSTM reads (L, B, N)
            return self.head(self.lstm(x.transpose(0, 1))[0].mean(0))

    model, x = Tagger().eval(), torch.randn(40, 7, 12)
    compressed, report = lrp.compress(model, x, 0.5)
    what = dict(zip(report.layer, report.what, strict=True))
    assert not what["lstm.l0.input"].startswith("left") and not what["lstm.l0_reverse.input"].startswith("left")
    lrp.save(compressed, tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", Tagger)(x), compressed(x))
    lrp.export_onnx(compressed, x[:1], tmp_path / "a.onnx")

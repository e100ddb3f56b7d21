"""Compressed networks in other forms: torch.export, ONNX, and batch norms folded away."""

import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.layer.base import LowRank
from lrp.model.resnet20 import ResNet20
from lrp.model.vgg16 import VGG16
from lrp.network.trace import Folded


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class Sequence(nn.Module):
    """Conv1d, one of them grouped, and a Linear with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Conv1d(8, 8, 3, stride=2, groups=2, bias=False), nn.BatchNorm1d(8, affine=False), nn.ReLU(),
        )  # fmt: skip
        self.hidden, self.norm, self.out = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.hidden(self.body(x).mean(2)))))


class Small(nn.Module):
    """A few layers of VGG: quick to export."""

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.body = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), last)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(F.relu(self.body(x)).mean((2, 3)))


NETWORKS = {
    "vgg": (lambda: VGG16(width=1 / 16), (3, 32, 32)), "resnet": (lambda: ResNet20(width=1 / 4), (3, 32, 32)),
    "encoder": (Encoder, (5, 6)), "small": (Small, (3, 8, 8)), "sequence": (Sequence, (4, 12)),
}  # fmt: skip


def shaken(model, seed=0):
    """Every batch norm with statistics and weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in [*norm.parameters(), *(buffer for buffer in norm.buffers() if buffer.is_floating_point())]:
                tensor.data.uniform_(0.3, 1.5, generator=generator)
    return model


def make(name, blocking="none", sparsity=0.6):
    """(a compressed network, inputs)"""
    build, shape = NETWORKS[name]
    x = torch.randn(5, *shape)
    model, _ = lrp.compress(shaken(build().eval()), x, sparsity, blocking=blocking, scoring_images=2, images=5)
    assert any(isinstance(m, LowRank) for m in model.modules())
    return model, x


@pytest.mark.parametrize("name, blocking", [
    ("small", "none"), ("small", "square"), ("small", "alds"), ("sequence", "square"), ("vgg", "none"), ("resnet", "none"),
    ("encoder", "none"),
])  # fmt: skip
def test_torch_export(name, blocking):
    model, x = make(name, blocking)
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        exported = program.module()
        for batch in (x[:1], x[:3], x, torch.cat([x, x, x])):
            assert torch.allclose(exported(batch), model(batch), atol=1e-5)
    operators = [node.target for node in program.graph.nodes if node.op == "call_function" and node.target is not operator.mul]
    assert operators and all(isinstance(op, torch._ops.OpOverload) and op.namespace == "aten" for op in operators)
    # operator.mul: of sizes, in torch's own attention
    assert {node.op for node in program.graph.nodes} == {"placeholder", "call_function", "output"}  # get_attr would hold a branch


@pytest.mark.parametrize("name, blocking", [("small", "square"), ("resnet", "none"), ("encoder", "none")])
def test_onnx(name, blocking, tmp_path):
    import onnx
    import onnxruntime

    model, x = make(name, blocking)
    model.train()
    before = copy.deepcopy(model.state_dict())
    path = tmp_path / "a.onnx"
    assert lrp.export_onnx(model, x, path) <= 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert all(m.training for m in model.modules()) and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"} and not graph.functions
    assert not {node.op_type for node in graph.graph.node} & {"If", "Loop", "Scan"}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    model.eval()
    for batch in (x[:1], x[:2], torch.cat([x, x])):
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0])
        with torch.no_grad():
            assert torch.allclose(found, model(batch), atol=1e-4)


def test_onnx_that_differs_is_refused(tmp_path):
    model, x = make("small")
    with pytest.raises(lrp.InputError, match="export_onnx: .*differ by .* more than 0") as error:
        lrp.export_onnx(model, x[:1], tmp_path / "a.onnx", tolerance=0.0)  # rounding alone is more
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


# Batch norms


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("sparsity", [None, 0.5, 0.95])
@pytest.mark.parametrize("blocking", ["none", "square"])
@pytest.mark.parametrize("name, shape", [("small_vgg", (3, 32, 32)), ("residual", (3, 8, 8)), ("depthwise", (3, 9, 10))])
def test_fuse_computes_the_same(name, shape, blocking, sparsity, request):
    model, x = request.getfixturevalue(name), torch.randn(4, *shape).double()
    if sparsity is not None:
        model, _ = lrp.compress(model, x, sparsity, blocking=blocking, scoring_images=2, images=4, recovery="none")
    before = copy.deepcopy(model.state_dict())
    model.train()  # the copy is in eval mode all the same
    fused = lrp.fuse(model)
    assert all(m.training for m in model.modules() if not isinstance(m, nn.ParameterDict))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and norms(model)
    assert not fused.training and len(norms(fused)) == 0
    assert sum(isinstance(m, Folded) for m in fused.modules()) == len(norms(model))
    model.eval()
    with torch.no_grad():
        y = model(x)
        assert torch.allclose(fused(x), y, rtol=1e-10, atol=1e-10 * max(1.0, float(y.abs().max())))
        scale = max(1.0, float(y.abs().max()))
        assert torch.allclose(lrp.fuse(model.float())(x.float()).double(), y, atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["sequence", "resnet"])
def test_fuse_other_networks(name):
    model, x = make(name, "square", 0.5)
    model, x = model.double(), x.double()
    fused = lrp.fuse(model)
    with torch.no_grad():
        assert not norms(fused) and torch.allclose(fused(x), model(x), atol=1e-10)
    assert not any(p.requires_grad for p in lrp.fuse(model.requires_grad_(False)).parameters())
    again = lrp.fuse(fused)
    assert torch.equal(again(x), fused(x))


def test_a_fused_network_is_in_eval_mode():

    assert [name for name, m in lrp.fuse(make("small")[0].train()).named_modules() if m.training] == []


def test_batch_norms_that_stay():
    """Before the layer, after a sum, after two layers, over tokens, without statistics, of a layer whose output is read twice."""

    class Stay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b, self.c = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.sum, self.shared, self.free = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6, track_running_stats=False)

        def forward(self, x):
            y = self.b(self.a(self.first(x)))
            z = self.shared(y) + y
            return self.free(self.c(self.sum(z + x)))

    model, x = shaken(Stay().eval()), torch.randn(8, 6)
    fused = lrp.fuse(model)
    assert len(norms(fused)) == 4 and torch.allclose(fused(x), model(x), atol=1e-5)
    over_tokens = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(5)).eval()
    assert len(norms(lrp.fuse(over_tokens))) == 1


def test_a_batch_norm_over_as_many_tokens_as_features():
    """Nothing but the input tells it from one over features: it is folded, and refused when tokens come."""
    model, x = shaken(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()), torch.randn(3, 5, 6)
    fused = lrp.fuse(model)
    assert torch.allclose(fused(x[0]), model(x[0]), atol=1e-5)
    with pytest.raises(lrp.InputError, match="over tokens"):
        fused(x)


def test_a_tied_layer_and_its_batch_norm():
    """Scaling the one weight would scale the other."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(F.relu(self.norm(self.a(x))))

    model, x = shaken(Tied().eval()), torch.randn(4, 6)

    assert torch.allclose(lrp.fuse(model)(x), model(x), atol=1e-5)


def test_a_network_that_cannot_be_traced():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(lrp.InputError, match="fuse: torch.fx cannot trace") as error:
        lrp.fuse(Outer())
    assert "\n" not in str(error.value)

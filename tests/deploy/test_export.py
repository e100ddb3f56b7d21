"""Compressed networks by torch.export and in ONNX."""

import copy
import operator

import pytest
import torch
from deployed import exported
from torch import nn

import lrp
from lrp.form.known import FORMS
from lrp.inputs import Each
from lrp.layer.compressed import Compressed


@pytest.mark.slow
@pytest.mark.parametrize("name, blocking", [
    ("small", "none"), ("small", "square"), ("small", "alds"), ("sequence", "square"), ("vgg", "none"), ("resnet", "none"),
    ("encoder", "none"),
])  # fmt: skip
def test_torch_export(name, blocking):
    model, x = exported(name, blocking)
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        ran = program.module()
        for batch in (x[:1], x[:3], x, torch.cat([x, x, x])):
            assert torch.allclose(ran(batch), model(batch), atol=1e-5)
    operators = [node.target for node in program.graph.nodes if node.op == "call_function" and node.target is not operator.mul]
    assert operators and all(isinstance(op, torch._ops.OpOverload) and op.namespace == "aten" for op in operators)
    # operator.mul: of sizes, in torch's own attention
    assert {node.op for node in program.graph.nodes} == {"placeholder", "call_function", "output"}  # get_attr would hold a branch


def runs_alone(path, model, x):
    """The file holds plain operators without branches, and gives what the network gives at any batch size."""
    import onnx
    import onnxruntime

    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"} and not graph.functions
    assert not {node.op_type for node in graph.graph.node} & {"If", "Loop", "Scan"}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (x[:1], x[:2], torch.cat([x, x])):
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0])
        with torch.no_grad():
            assert torch.allclose(found, model(batch), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, blocking", [("small", "square"), *(pytest.param(name, "none", marks=pytest.mark.long) for name in ("resnet", "encoder"))]
)
def test_onnx(name, blocking, tmp_path):
    model, x = exported(name, blocking)
    model.train()
    before = copy.deepcopy(model.state_dict())
    path = tmp_path / "a.onnx"
    assert lrp.export_onnx(model, x, path) <= 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert all(m.training for m in model.modules()) and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    runs_alone(path, model.eval(), x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "forms",
    [*(pytest.param([name], marks=pytest.mark.long) for name in ("nested", "tucker2_pivoted", "spatial_pivoted")), [*FORMS]],
    ids=" ".join,
)  # of whose parts the others are
def test_onnx_of_every_form(forms, tmp_path):
    """As it is and fused; the program that ONNX is made from has a dynamic batch."""
    others = ["grouped", "point", "line"] if forms == ["spatial_pivoted"] else []  # which it does not fit: they alone exceed the budget
    model, x = exported("kinds", forms=forms, exclude=["head", *others])
    held = {module.form for module in model.modules() if isinstance(module, Compressed)}
    assert held & {*forms} and (len(forms) == 1 or len(held) > 1)
    for name, network in {"small": model, "fused": lrp.fuse(model)}.items():
        path = tmp_path / f"{name}.onnx"
        assert lrp.export_onnx(network, x, path) <= 1e-5
        runs_alone(path, network, x)


@pytest.mark.slow
def test_onnx_of_a_network_that_reads_a_list(tmp_path):
    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3)

        def forward(self, pictures):
            return torch.stack([self.conv(picture[None])[0].mean((1, 2)) for picture in pictures])

    pictures = Each([torch.rand(3, 9 + i, 8) for i in range(3)])
    assert lrp.export_onnx(Detector(), (pictures,), tmp_path / "a.onnx") < 1e-5


@pytest.mark.parametrize(("inputs", "said"), [(torch.zeros(0, 3), "it is empty; give at least one"), (3, "inputs=int: give a tensor")])
def test_onnx_of_no_examples_is_refused(inputs, said, tmp_path):
    with pytest.raises(lrp.InputError, match=said):
        lrp.export_onnx(nn.Linear(3, 2), inputs, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_onnx_that_differs_is_refused(tmp_path):
    model, x = exported("small")
    with pytest.raises(lrp.InputError, match="export_onnx: .*differ by .* more than 0") as error:
        lrp.export_onnx(model, x[:1], tmp_path / "a.onnx", tolerance=0.0)  # rounding alone is more
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_torch_fx(form):
    """Compressed layers have no branch on what they read: other tools trace them (quantisation in FX mode). Of some of them rows have lost
    all their components."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 18, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(18 * 16, 8)
    model, x = nn.Sequential(*layers).eval(), torch.randn(60, 3, 8, 8)
    options = (
        {"forms": [form], "exclude": ["4"]}
        if form != "matrix"
        else {"method": "singular_vectors", "blocking": "square", "scorer": "magnitude"}
    )
    small, report = lrp.compress(model, x, 0.8, compensation="none", **options)
    assert any(isinstance(layer, Compressed) for layer in small)
    for batch in (x[:1], x):
        assert torch.equal(torch.fx.symbolic_trace(small)(batch), small(batch))

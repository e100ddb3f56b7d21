"""Compressed networks by torch.export and in ONNX."""

import copy
import operator

import pytest
import torch
from deployed import exported

import lrp


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


@pytest.mark.slow
@pytest.mark.parametrize("name, blocking", [("small", "square"), ("resnet", "none"), ("encoder", "none")])
def test_onnx(name, blocking, tmp_path):
    import onnx
    import onnxruntime

    model, x = exported(name, blocking)
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


@pytest.mark.slow
def test_onnx_that_differs_is_refused(tmp_path):
    model, x = exported("small")
    with pytest.raises(lrp.InputError, match="export_onnx: .*differ by .* more than 0") as error:
        lrp.export_onnx(model, x[:1], tmp_path / "a.onnx", tolerance=0.0)  # rounding alone is more
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())

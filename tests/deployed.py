"""Compressed networks for files and exports."""

import json

import pytest
import torch
from cases import Encoder, Grouped, Kinds, Sequence, Small
from safetensors import safe_open
from torch import nn

import lrp
from lrp.entries import write_tensors
from lrp.layer.compressed import Compressed
from lrp.model.resnet20 import ResNet20
from lrp.model.vgg16 import VGG16

DEPLOYED = {
    "vgg": (lambda: VGG16(width=1 / 32), (3, 32, 32)), "resnet": (lambda: ResNet20(width=1 / 8), (3, 32, 32)),
    "encoder": (Encoder, (5, 6)), "grouped": (Grouped, (4, 9)), "small": (Small, (3, 8, 8)), "sequence": (Sequence, (4, 12)),
    "kinds": (Kinds, (3, 10, 9)),
}  # fmt: skip


def deployed(name, sparsity=0.6, **options):
    """(dense, compressed, inputs); not refitted, which takes most of the time and changes nothing about files."""
    options.setdefault("compensation", "none")
    build, shape = DEPLOYED[name]
    dense, x = build().eval(), torch.randn(4, *shape)
    return dense, lrp.compress(dense, x, sparsity, scoring_images=2, images=4, **options)[0], x


def described(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["lrp"]), {name: file.get_tensor(name) for name in file.keys()}


def rewrite(path, change):
    """Another description and other tensors, with the checksum that belongs to them."""
    description, tensors = described(path)
    description.pop("sha256")
    change(description, tensors)
    write_tensors(path, tensors, description)


def file_refused(path, model, match):
    with pytest.raises(lrp.InputError, match=match) as error:
        lrp.load(path, model)
    assert "\n" not in str(error.value) and str(path) in str(error.value) and len(str(error.value)) < 600


def shaken(model, seed=0):
    """Every batch norm with statistics and weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in [*norm.parameters(), *(buffer for buffer in norm.buffers() if buffer.is_floating_point())]:
                tensor.data.uniform_(0.3, 1.5, generator=generator)
    return model


def exported(name, blocking="none", sparsity=0.6, **options):
    """(a compressed network whose batch norms have statistics of their own, inputs); not refitted, as ``deployed``."""
    options.setdefault("compensation", "none")
    build, shape = DEPLOYED[name]
    x = torch.randn(5, *shape)
    model, _ = lrp.compress(shaken(build().eval()), x, sparsity, blocking=blocking, scoring_images=2, images=5, **options)
    assert any(isinstance(m, Compressed) for m in model.modules())
    return model, x

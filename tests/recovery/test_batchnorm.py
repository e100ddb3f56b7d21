"""Batch norm statistics, estimated again."""

import torch
from torch import nn

from lrp.recovery.batchnorm import BatchNormRecovery
from lrp.recovery.context import Context


def test_batchnorm_statistics_are_the_cumulative_average():
    """Against means and variances computed by hand; no weight, mode or momentum changes."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=0.3)
    ).double()
    model.eval()
    model[2].train()
    images = [torch.randn(4, 1, 6, 6).double() for _ in range(3)]
    weights = {name: p.clone() for name, p in model.named_parameters()}
    BatchNormRecovery()(model, Context(lambda: images))
    with torch.no_grad():
        outputs = [model[0](x) for x in images]
        normalised = [nn.functional.batch_norm(y, None, None, model[1].weight, model[1].bias, training=True) for y in outputs]
        deeper = [model[3](y) for y in normalised]  # dropout was off: re-estimation runs everything else in eval mode
    for norm, values in ((model[1], outputs), (model[4], deeper)):
        assert torch.allclose(norm.running_mean, torch.stack([v.mean((0, 2, 3)) for v in values]).mean(0))
        assert torch.allclose(norm.running_var, torch.stack([v.var((0, 2, 3)) for v in values]).mean(0))
    assert [m.training for m in model] == [False, False, True, False, False]
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.3)
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())

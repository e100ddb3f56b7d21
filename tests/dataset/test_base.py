"""What is done with the images of a data set."""

import pytest
import torch

from lrp.dataset.cifar10 import Cifar10
from lrp.errors import InputError


@pytest.mark.slow
def test_calibration_depends_on_its_seed_alone(embedded):
    data = embedded
    first, again, other = (data.calibration(100, seed).index for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(set(first.tolist())) == 100
    assert torch.equal(data.calibration(30, 0).index, first[:30])
    assert set(first.tolist()) <= set(data.train.index.tolist())
    with pytest.raises(InputError, match="calibration.images=3601: .*3600"):
        data.calibration(3601, 0)


@pytest.mark.slow
def test_augmentation_crops_and_mirrors(cifar):
    data = Cifar10(path=str(cifar[0]), flip=True, crop=4).load()
    images = data.train.images[:32]
    out = data.augment(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (4,) * 4)
    mirrored = 0
    for i in range(32):
        crops = {(top, left): padded[i, :, top : top + 32, left : left + 32] for top in range(9) for left in range(9)}
        plain = any(torch.equal(out[i], crop) for crop in crops.values())
        flipped = any(torch.equal(out[i], crop.flip(2)) for crop in crops.values())
        assert plain or flipped
        mirrored += flipped and not plain
    assert 5 < mirrored < 27
    assert torch.equal(out, data.augment(images, torch.Generator().manual_seed(0)))


@pytest.mark.slow
def test_normalise(embedded):
    data = embedded
    pixel = torch.full((1, 1, 1, 1), 51, dtype=torch.uint8)
    assert float(data.normalise(pixel)) == pytest.approx((0.2 - 0.1307) / 0.3081, rel=1e-6)

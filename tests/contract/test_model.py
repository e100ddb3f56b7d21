"""What every network fulfils: it is made for any images and classes, and can be compressed."""

import pytest
import torch
from contract.adapt import compose, every, survey

from lrp.errors import InputError


def make(name, channels, classes):
    source = compose(f"model={name}").model
    torch.manual_seed(0)
    return source.make(**source.arguments(in_channels=channels, num_classes=classes)).eval()


@pytest.mark.slow
@every("model")
@pytest.mark.parametrize("channels, classes", [(1, 10), (3, 7)])
def test_runs_on_small_images_or_on_tokens(name, channels, classes):
    """One that reads files says in a sentence that they are missing."""
    try:
        model = make(name, channels, classes)
    except InputError as error:
        assert "\n" not in str(error) and "model.path" in str(error), f"model={name}: one sentence names the option that has to be set"
        return
    reads_tokens = any(isinstance(module, torch.nn.Embedding) for module in model.modules())
    x = torch.randint(0, classes, (2, 16)) if reads_tokens else torch.randn(2, channels, 32, 32)
    with torch.no_grad():
        y = model(x)
    shape = (2, 16, classes) if reads_tokens else (2, classes)
    assert y.shape == shape, f"model={name}: images (B, C, 32, 32) give (B, classes), tokens (B, T) give (B, T, classes)"
    assert y.isfinite().all(), f"model={name}: outputs are finite before any training"
    assert survey(model, x).matrices, f"model={name}: there are layers to compress"


@pytest.mark.slow
@every("model")
def test_two_of_a_kind_have_the_same_keys(name):
    """Files of one load into the other; the same seed gives the same weights."""
    try:
        make(name, 3, 10)
    except InputError:
        pytest.skip("it reads files")
    one, other = make(name, 3, 10).state_dict(), make(name, 3, 10).state_dict()
    assert list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one), f"model={name}: the seed decides the weights"

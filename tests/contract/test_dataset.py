"""What every data set fulfils: parts that share no image, the same again; or one sentence where its files are missing."""

import pytest
import torch
from contract.adapt import every, load, takes

from lrp.errors import InputError


@pytest.mark.slow
@every("dataset")
def test_parts_share_no_image_or_a_sentence_says_what_is_missing(name, tmp_path):
    """Nothing is downloaded: a data set that is not inside lrp gets a folder that there is not."""
    missing = {"path": str(tmp_path / "nowhere"), "root": str(tmp_path)}
    rule = f"dataset={name}: "
    try:
        data = load(name, **missing)
    except InputError as error:
        assert "\n" not in str(error) and "dataset.path" in str(error), rule + "one sentence names the option that has to be set"
        return
    train, validation = set(data.train.index.tolist()), set(data.validation.index.tolist())
    assert len(train) == len(data.train) and not train & validation, rule + "no image is in two parts"
    for part in (data.train, data.validation, data.test):
        images, tokens = ((torch.uint8, 4, 1), (torch.int64, 2, 2))
        kind = part.images.dtype, part.images.dim(), part.labels.dim()
        assert kind in (images, tokens) and len(part.images) == len(part.labels) == len(part.index), (
            rule + "images are uint8 (B, C, H, W), with a label each; or tokens are int64 (B, T), with a label each"
        )
        assert kind == images or part.images.shape == part.labels.shape and int(part.images.max()) < data.num_classes, rule + "tokens"
        assert len(part) and 0 <= int(part.labels.min()) and int(part.labels.max()) < data.num_classes, rule + "labels are classes"
    if kind == images:
        assert len(data.mean) == len(data.std) == data.channels, rule + "a mean and a standard deviation for each channel"
    assert data.normalise(data.train.images[:2]).isfinite().all(), rule + "images can be normalised"
    torch.manual_seed(123)
    assert load(name, **missing).fingerprint() == data.fingerprint(), (
        rule + "it is divided the same way again, whatever drew random numbers"
    )


@every("dataset")
@pytest.mark.parametrize("option, bad", [("crop", -1), ("flip", "perhaps")])
def test_bad_options_are_a_sentence(name, option, bad):
    if not takes("dataset", name, option):
        pytest.skip("it has no such option")
    with pytest.raises(InputError, match=f"^dataset.{option}=") as error:
        load(name, path="nowhere", **{option: bad})
    assert "\n" not in str(error.value)

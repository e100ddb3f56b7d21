"""Accuracy and loss against a loop."""

import pytest
import torch
from helpers import one_channel_vgg, refused
from torch import nn

from lrp.evaluation import check_logits, evaluate


def test_evaluation_against_a_loop(tiny):
    model = one_channel_vgg().eval()
    metrics = evaluate(model, tiny, tiny.test, 7)
    right, loss = 0, 0.0
    with torch.no_grad():
        for image, label in zip(tiny.test.images, tiny.test.labels):
            logits = model(tiny.normalise(image[None])).double()[0]
            right += int(logits.argmax() == label)
            loss -= float(logits.log_softmax(0)[label]) / len(tiny.test)
    assert metrics.accuracy == right / len(tiny.test) and metrics.loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("logits, sentence", [
    (torch.zeros(2, 5), "the network has 5 outputs, but made has 10 classes"),
    (torch.zeros(2), "the network gives float32 of shape (2,) for 2 images, but made needs logits"),
    (torch.zeros(2, 10, 4, 4), "of shape (2, 10, 4, 4) for 2 images"),
    (torch.zeros(3, 10), "of shape (3, 10) for 2 images"), (torch.tensor(0.0), "of shape () for 2 images"),
    (torch.zeros(2, 10, dtype=torch.int64), "int64 of shape (2, 10)"), (torch.zeros(2, 10, dtype=torch.complex64), "complex64 of shape"),
    ((torch.zeros(2, 10),), "the network gives a tuple, but made needs logits (images, outputs), of at least 10 outputs"),
])  # fmt: skip
def test_outputs_that_are_no_logits(data, logits, sentence):
    refused(lambda: check_logits(logits, 2, data), sentence)


def test_more_outputs_than_classes_are_logits(data):
    check_logits(torch.zeros(2, 10), 2, data)
    check_logits(torch.zeros(1, 1000, dtype=torch.bfloat16), 1, data)


def test_evaluation_asks_for_logits(data):
    refused(
        lambda: evaluate(nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), data, data.test, 64), "has 5 outputs, but made has 10 classes"
    )

"""Accuracy and loss against a loop."""

import pytest
import torch
from helpers import one_channel_vgg

from lrp.evaluation import evaluate


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

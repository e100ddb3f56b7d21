"""A kill between the last result and the removal of what led to it: the next run removes that."""

import pytest
import torch
from helpers import factors_of, left_by_a_kill, one_channel_vgg

from lrp.blocking.none import Unblocked
from lrp.config.build import compose_job
from lrp.estimator.cache import cached_moments
from lrp.estimator.exact import ExactEstimator
from lrp.model.source import ModelSource
from lrp.training import Training


def test_unfinished_scores(tmp_path, residual):
    """Also a temporary file of a write that was killed."""
    x, (_, factors) = torch.randn(2, 3, 8, 8).double(), factors_of(residual, Unblocked())
    partial = tmp_path / "key.partial"
    for _ in range(2):  # computed, then read
        partial.mkdir()
        for name in ("0-2-0.safetensors", left_by_a_kill("0-2-1.safetensors")):
            (partial / name).write_bytes(b"")
        cached_moments(tmp_path, "key", factors, lambda folder: ExactEstimator()(residual, factors, x))
        assert not partial.exists()


@pytest.mark.slow
def test_unfinished_training(tmp_path, tiny):
    source = ModelSource("tiny", one_channel_vgg, {}, None, Training(epochs=1, lr=0.05, batch_size=32))
    source.obtain(tiny, 0, tmp_path, torch.device("cpu"))
    (file,) = (tmp_path / "models").glob("*.safetensors")
    file.with_suffix(".unfinished.pt").write_bytes(b"")
    source.obtain(tiny, 0, tmp_path, torch.device("cpu"))
    assert not file.with_suffix(".unfinished.pt").exists()


@pytest.mark.slow
def test_states_of_a_study(tmp_path):
    words = ["study=rank_switch", "dataset=mnist_small", "threads=1", "study.width=0.03125", "study.images=64", "study.epochs=2"]
    words += ["study.train_ranks=[2]", "study.switch_ranks=[2]", "study.switch_epochs=[1]", "resume=true", f"cache_dir={tmp_path}/cache"]
    compose_job(*words).run(tmp_path / "run")
    (tmp_path / "run/states").mkdir(exist_ok=True)
    (tmp_path / "run/states/rank2-latest.pt").write_bytes(b"")
    compose_job(*words).run(tmp_path / "run")
    assert not (tmp_path / "run/states").exists()

"""One's own network and images from the shell."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from helpers import refused, write_images
from shell import check_refused

import lrp
from lrp.config.build import compose_job
from lrp.cost.timing import LATENCY_COLUMNS
from lrp.dataset.folder import ImageFolder

pytestmark = pytest.mark.slow

NETWORK = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, channels=24):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(channels, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
        self.fc = nn.Linear(48, num_classes)

    def forward(self, x):
        return {"scores": self.fc(self.features(x))}


def logits(result):
    return result["scores"]
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "mynet.py").write_text(NETWORK)
    write_images(tmp_path / "images")
    return tmp_path


def words(place, *more):
    shared = ["dataset=folder", "dataset.size=16", "threads=1", f"cache_dir={place}/cache"]
    return [*shared, "model._target_=mynet.Net", *more]


@pytest.mark.long
def test_own_network_on_own_images(place, monkeypatch):
    """Trained, pruned in MACs, timed and saved; the file loads into the architecture and computes what the row says."""
    given = words(
        place, "dataset.path=images", f"hydra.run.dir={place}/run", "estimator.output_fn=mynet.logits", "model.training.epochs=6",
        "save=true", "evaluation.latency=true", "budget=macs", "exclude=[fc]", "sparsity.grid=[0,0.5]", "recovery=batchnorm",
        "selection.round_to=8",
    )  # fmt: skip
    command = [sys.executable, "-m", "lrp.run", *given]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    table = pd.read_csv(place / "run" / "results.csv")
    assert list(table["model"]) == ["mynet.Net"] * 2 and list(table["dataset"]) == ["folder"] * 2 and list(table["exclude"]) == ["fc"] * 2
    row = table.iloc[1]
    assert row["sparsity_macs"] >= 0.5 and row["sparsity_params"] > 0 and row["budget"] == "macs" and row["round_to"] == 8
    assert row["calibration_images"] == 65  # a tenth of 72 is held out, and 512 were asked for
    assert row[LATENCY_COLUMNS].notna().all()
    assert row["latency_threads"] == 1 and row["latency_device"] == "cpu"

    monkeypatch.syspath_prepend(str(place))
    import mynet

    loaded = lrp.load(place / "run" / "model-0.5.safetensors", model=lambda: mynet.Net(3))
    assert loaded.lrp_report.attrs["params"] == row["params"] and isinstance(loaded.fc, torch.nn.Linear)
    data = ImageFolder(path=str(place / "images"), size=16).load()
    with torch.no_grad():
        found = loaded(data.network_input(data.test.images, torch.device("cpu")))["scores"].argmax(1)
    assert float((found == data.test.labels).double().mean()) == pytest.approx(row["accuracy"])


ATTENTION = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 2, 32, batch_first=True), 1)
        self.fc = nn.Linear(24, num_classes)

    def forward(self, x):
        return self.fc(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))
"""


def test_attention_is_compressed_saved_and_put_back(place, monkeypatch):
    (place / "myattention.py").write_text(ATTENTION)
    monkeypatch.syspath_prepend(str(place))
    shared = [word for word in words(place) if not word.startswith("model.")]
    given = [*shared, "model._target_=myattention.Net", f"dataset.path={place}/images", "model.training.epochs=1", "save=true"]
    compose_job(*given, "method=output_aware", "sparsity.grid=[0,0.5]").run(place / "run")
    layers = pd.read_csv(place / "run" / "layers.csv")
    assert {f"encoder.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v", "out")} < set(layers["layer"])
    import myattention

    attention = {
        sparsity: lrp.load(place / "run" / f"model-{sparsity}.safetensors", lambda: myattention.Net(3)).encoder.layers[0].self_attn
        for sparsity in ("0", "0.5")
    }
    assert type(attention["0"]) is torch.nn.MultiheadAttention and type(attention["0.5"]) is not torch.nn.MultiheadAttention


def test_as_it_is_and_sentences(place, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(place))
    job = compose_job(*words(place, f"dataset.path={place}/images", "model.training.epochs=0", "sparsity.grid=[0.5]"))
    refused(lambda: job.run(place / "run"), "estimator.output_fn=null: the network gives a dict")
    error = check_refused(words(place, "+model.chanels=3"), "model=mynet.Net: its options do not fit", capsys)
    assert "chanels" in error

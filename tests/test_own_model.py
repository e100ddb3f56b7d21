"""One's own network and images from the shell: the pipeline with a callable, a folder of images, saved results and latency."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import lrp
from lrp.config.build import compose_job
from lrp.dataset.folder import ImageFolder
from lrp.errors import InputError

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
        return {"logits": self.fc(self.features(x))}


def logits(result):
    return result["logits"]
"""


def write_images(folder, splits=("",), classes=("a", "b", "c"), count=30):
    generator = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 90, (20 + i % 4, 24, 3), dtype=np.uint8)
                pixels[..., number % 3] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "mynet.py").write_text(NETWORK)
    write_images(tmp_path / "images")
    return tmp_path


def lrp_run(place, *words, code=0):
    shared = [
        "dataset=folder",
        "dataset.path=images",
        "dataset.size=16",
        f"hydra.run.dir={place}/run",
        "threads=1",
        f"cache_dir={place}/cache",
    ]
    command = [sys.executable, "-m", "lrp.run", *shared, *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_own_network_on_own_images(place, monkeypatch):
    """Trained, pruned in MACs, timed and saved; the file loads into the architecture and computes what the row says."""
    words = [
        "model._target_=mynet.Net",
        "estimator.output_fn=mynet.logits",
        "model.training.epochs=6",
        "save=true",
        "evaluation.latency=true",
    ]
    lrp_run(place, *words, "budget=macs", "exclude=[fc]", "sparsity.grid=[0,0.5]", "recovery=batchnorm", "selection.round_to=8")
    table = pd.read_csv(place / "run" / "results.csv")
    assert list(table["model"]) == ["mynet.Net"] * 2 and list(table["dataset"]) == ["folder"] * 2 and list(table["exclude"]) == ["fc"] * 2
    row = table.iloc[1]
    assert row["sparsity_macs"] >= 0.5 and row["sparsity_params"] > 0 and row["budget"] == "macs" and row["round_to"] == 8
    assert row["calibration_images"] == 65  # a tenth of 72 is held out, and 512 were asked for
    for size in (1, 64):
        assert row[f"latency_{size}"] > 0 and row[f"latency_dense_{size}"] > 0 and row[f"latency_{size}_iqr"] >= 0
    assert row["latency_threads"] == 1 and row["latency_device"] == "cpu"

    monkeypatch.syspath_prepend(str(place))
    import mynet

    loaded = lrp.load(place / "run" / "model-0.5.safetensors", model=lambda: mynet.Net(3))
    assert loaded.lrp_report.attrs["params"] == row["params"] and isinstance(loaded.fc, torch.nn.Linear)
    data = ImageFolder(path=str(place / "images"), size=16).load()
    with torch.no_grad():
        found = loaded(data.network_input(data.test.images, torch.device("cpu")))["logits"].argmax(1)
    assert float((found == data.test.labels).double().mean()) == pytest.approx(row["accuracy"])


def test_as_it_is_and_sentences(place):
    error = lrp_run(place, "model._target_=mynet.Net", "model.training.epochs=0", "sparsity.grid=[0.5]", code=1)
    assert "estimator.output_fn=null: the network gives a dict" in error
    error = lrp_run(place, "model._target_=mynet.Net", "+model.chanels=3", code=2)
    assert "model=mynet.Net: its options do not fit" in error and "chanels" in error


def test_torchvision_functions_get_the_number_of_classes():
    job = compose_job("model._target_=torchvision.models.resnet18", "dataset=folder", "dataset.path=x")
    assert job.model.name == "torchvision.models.resnet18"
    assert job.model.arguments(in_channels=3, num_classes=7) == {"num_classes": 7}
    own = compose_job("model=vgg16_slim").model
    assert own.arguments(in_channels=3, num_classes=7) == {"width": 0.125, "in_channels": 3, "num_classes": 7}


def test_folders_of_images(tmp_path):
    """One folder is divided once and for all; train and test (or val) are taken as they are; images are scaled and cut."""
    write_images(tmp_path / "one")
    data = ImageFolder(path=str(tmp_path / "one"), size=16).load()
    assert data.num_classes == 3 and data.train.images.shape[1:] == (3, 16, 16) and data.train.images.dtype == torch.uint8
    assert [len(part) for part in (data.train, data.validation, data.test)] == [65, 7, 18]
    parts = [set(part.index.tolist()) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 90
    write_images(tmp_path / "two", ("train", "val"), count=10)
    data = ImageFolder(path=str(tmp_path / "two"), size=16).load()
    assert (len(data.train) + len(data.validation), len(data.test)) == (30, 30)
    file = tmp_path / "flat" / "a" / "0.png"
    pixels = np.random.default_rng(1).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    for i in range(12):
        file = tmp_path / "flat" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    data = ImageFolder(path=str(tmp_path / "flat"), size=32).load()
    assert np.array_equal(data.train.images[0].permute(1, 2, 0).numpy(), pixels[:, 16:48])  # the middle, not scaled
    assert data.normalise(data.train.images[:1]).mean((0, 2, 3)).abs().max() < 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: None, "dataset.size=null: the images have different sizes"),
        (lambda f: (f / "a" / "0.png").write_bytes(b"no image"), "0.png is not an image"),
        (lambda f: (f / "empty").mkdir(), "must hold one folder of images per class"),
        (lambda f: (f / "train").mkdir(), "needs both a folder train and a folder test"),
    ],
)
def test_bad_folders(tmp_path, change, sentence):
    write_images(tmp_path / "images")
    change(tmp_path / "images")
    with pytest.raises(InputError, match=sentence):
        ImageFolder(path=str(tmp_path / "images"), size=None if "sizes" in sentence else 16).load()
    for path in (None, str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(InputError, match="dataset.path="):
            ImageFolder(path=path, size=16).load()

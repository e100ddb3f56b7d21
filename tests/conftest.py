"""Small networks and data that the tests share."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["WANDB_MODE"] = "offline"

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrp.config.check import check_command_line
from lrp.config.schema import register

torch.set_num_threads(1)  # as fast here, and not a hundred times slower where something else uses the cores


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """float64, eval mode, every batch norm with statistics of its own."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 2), (module.weight.data, 0.5, 2), (module.bias.data, -1, 1)
            ):  # fmt: skip
                tensor.uniform_(low, high, generator=generator)
    return model


def check_refused(words, sentence, capsys) -> None:
    """This command line ends at once, with status 2 and one line on stderr that holds the sentence."""
    register()
    with pytest.raises(SystemExit) as stop:
        check_command_line(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("lrp: ") and sentence in error and "\n" not in error


class Residual(nn.Module):
    """Sums, a shortcut convolution, an in-place ReLU after a sum, and pooling by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.short = nn.Conv2d(6, 8, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.relu(self.bn(self.stem(x)))
        out = self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))
        out += self.short(x)
        return self.fc(self.relu(out).mean((2, 3)))


class Depthwise(nn.Module):
    """A grouped and a depthwise convolution between dense ones, a dilated one, and a padding mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect", bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn2 = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 10, 1)
        self.grouped = nn.Conv2d(10, 6, 3, padding=2, dilation=2, groups=2)
        self.last = nn.Conv2d(6, 7, (3, 2), padding="same", dilation=2)
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        x = F.hardswish(self.bn(self.stem(x)))
        x = torch.relu(self.bn2(self.depthwise(x)))
        x = F.silu(self.last(F.gelu(self.grouped(self.pointwise(x)))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Tokens(nn.Module):
    """Linear layers over (B, T, C), mixed over T by a product: attention with one head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)
        self.query, self.key, self.value = (nn.Linear(6, 6, bias=False) for _ in range(3))
        self.out = nn.Linear(6, 4)

    def forward(self, x):  # (B, 3, H, 4): tokens are the rows
        x = self.embed(x.permute(0, 2, 1, 3).flatten(2))
        h = self.norm(x)
        x = x + torch.softmax(self.query(h) @ self.key(h).transpose(1, 2), dim=-1) @ self.value(h)
        return self.out(x).mean(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def small_vgg():
    from lrp.model.vgg16 import VGG16

    return randomise(VGG16(width=1 / 16))


@pytest.fixture
def residual():
    return randomise(Residual())


@pytest.fixture
def depthwise():
    return randomise(Depthwise())


@pytest.fixture
def tokens():
    return randomise(Tokens())

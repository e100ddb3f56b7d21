"""Small networks that tests share; each stands once."""

import torch
from torch import nn
from torch.nn import functional as F


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


class Encoder(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        layer = nn.TransformerEncoderLayer(width, 2, dim_feedforward=2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class TiedTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.output = nn.Embedding(50, 20), nn.Linear(20, 20), nn.Linear(20, 50, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(F.relu(self.inner(self.embedding(tokens)))).mean(1)


class Grouped(nn.Module):
    def __init__(self, groups: int = 2, stride: int = 1, kernel: int = 3, bias: bool = True, mode: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, kernel, stride, kernel // 2, groups=groups, bias=bias, padding_mode=mode)
        self.second = nn.Conv1d(8, 6, 3, padding="same")

    def forward(self, x):
        return self.second(F.relu(self.first(x))).mean(2)


class Untraceable(nn.Module):
    """torch.fx cannot follow what depends on values; writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.first(x))
        if float(x.sum()) >= 0:
            x = x + self.second(x)
        x *= 0.5
        return self.fc(self.relu(x).mean((2, 3)))


class Keywords(nn.Module):
    """Layers called with keywords, defined in another order than they run in, a layer that does not run, two heads; takes more
    than the images."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(10, 3)
        self.unused = nn.Linear(4, 4)
        self.right = nn.Linear(10, 2, bias=False)
        self.trunk = nn.ModuleList([nn.Linear(12, 10), nn.Linear(10, 10)])

    def forward(self, x, *more, scale=1.0, **options):
        x = scale * torch.tanh(self.trunk[1](input=torch.relu(self.trunk[0](input=x))))
        return self.left(x), self.right(input=x)


class Constants(nn.Module):
    """Writes into what it is given, and makes a tensor as it runs; ``traced``: torch.fx can follow it."""

    def __init__(self, traced: bool) -> None:
        super().__init__()
        self.fc, self.out, self.traced = nn.Linear(6, 8), nn.Linear(8, 3), traced

    def forward(self, x):
        x -= 1
        x = torch.relu(self.fc(x)) * torch.arange(1.0, 9.0, dtype=torch.float64)
        return self.out(x) if self.traced or float(x.sum()) >= 0 else x


class Chain(nn.Module):
    """1d: grouped and strided, circular and dilated, "same" with an even kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
        self.b = nn.Conv1d(6, 5, 3, padding=2, dilation=2, padding_mode="circular")
        self.c = nn.Conv1d(5, 8, 4, padding="same")
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.c(torch.tanh(self.b(torch.relu(self.a(x))))).mean(2))


class Sequence(nn.Module):
    """Conv1d, one of them grouped, and a Linear with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Conv1d(8, 8, 3, stride=2, groups=2, bias=False), nn.BatchNorm1d(8, affine=False), nn.ReLU(),
        )  # fmt: skip
        self.hidden, self.norm, self.out = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.hidden(self.body(x).mean(2)))))


class Small(nn.Module):
    """A few layers of VGG: quick to export."""

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.body = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), last)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(F.relu(self.body(x)).mean((2, 3)))


class Odd(nn.Module):
    """One of each layer that is left alone, and two that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lookup = nn.Embedding(9, 12), nn.Embedding(9, 12)
        self.conv = nn.Conv1d(12, 12, 3, padding=1)
        self.depthwise = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.up = nn.ConvTranspose1d(12, 12, 2)
        self.twice = nn.Linear(12, 12)
        self.unused = nn.Linear(12, 12)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(12, 12))
        self.body = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
        self.alias_a = nn.Linear(12, 12)
        self.alias_b = self.alias_a
        self.output = nn.Linear(12, 9, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens) + self.lookup(tokens)
        x = self.up(self.depthwise(self.conv(x.transpose(1, 2)))).transpose(1, 2)
        x = self.body(self.normed(F.relu(self.twice(F.relu(self.twice(x))))))
        return self.output(self.alias_b(self.alias_a(x))).mean(1)


class Wrapped(nn.Module):
    def __init__(self, model, wrap) -> None:
        super().__init__()
        self.model, self.wrap = model, wrap

    def forward(self, x):
        return self.wrap(self.model(x))


class TwoNames(nn.Module):
    """A layer and its batch norm, registered under two names and called by the second; a head called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.block = nn.Sequential(self.conv, self.bn)
        self.fc = nn.Linear(16, 12)

    def forward(self, x):
        return self.fc(input=F.relu(self.block(x)).mean((2, 3)))


class PlainAndGrouped(nn.Module):
    """A plain and a grouped convolution without biases, and Linear layers; small."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2, bias=False)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.conv(x)))).mean((2, 3))
        return self.fc2(torch.relu(self.fc1(x)))


class Affine(nn.Module):
    """Linear from end to end: convolutions, batch norm in eval mode, a sum, average pooling, a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.short = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc((self.bn(self.conv(x)) + self.short(x)).mean((2, 3)))


class Twice(nn.Module):
    """One layer runs twice; a second one never runs."""

    def __init__(self):
        super().__init__()
        self.fc, self.unused, self.last = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.fc(torch.tanh(self.fc(x)))))


class Branching(Twice):
    """torch.fx cannot trace it; an in-place change follows a layer."""

    def forward(self, x):
        x = self.fc(x)
        x += 1
        x = torch.tanh(x) if float(x.detach().abs().sum()) > 0 else x
        return self.last(F.relu_(self.fc(input=x)))


class FixedBatch(nn.Module):
    """The number of images is read from the input and used behind the layers: copies cannot run as one batch."""

    def __init__(self):
        super().__init__()
        self.fc, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.fc(x)).view(x.shape[0], -1))


class Strided(nn.Module):
    """What a network returns is a dict; its 1 x 1 convolution with stride 2 of few channels breaks in channels_last order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 1, stride=2)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.down(F.relu(self.conv(x)))
        if self.training:
            self.seen = x.is_contiguous()
        return {"logits": self.fc(x.mean((2, 3)))}


class Kinds(nn.Module):
    """Convolutions of every kind, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, padding=2, groups=2)
        self.wide = nn.Conv2d(12, 10, (2, 3), padding="same", dilation=2)
        self.point = nn.Conv2d(10, 9, 1)
        self.line = nn.Conv1d(9, 8, 4, padding=2, padding_mode="circular")
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = self.point(torch.relu(self.wide(torch.relu(self.grouped(x)))))
        return self.head(torch.relu(self.line(torch.relu(x).flatten(2))).mean(2))

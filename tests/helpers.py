"""What tests share: made data, parts from conf/, slow reference ways."""

import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

import lrp
from lrp.config.parts import make
from lrp.config.paths import CONF
from lrp.dataset.base import Data, Part
from lrp.decomposition.base import decompose, form_of
from lrp.layer.build import kind_of, layer_matrices
from lrp.layer_statistics.gather import gather
from lrp.locks import neighbourhood
from lrp.method.singular_vectors import SingularVectors
from lrp.model.vgg16 import VGG16
from lrp.network.survey import find_candidates
from lrp.partition import cut
from lrp.results.columns import COLUMNS
from lrp.study.job import Place


def left_by_a_kill(name, made="abcd1234"):
    """What the temporary file of a file of this name is called, of a process of this machine that no longer runs."""
    stem, dot, suffix = name.rpartition(".")
    return f".{stem}-{neighbourhood()}-{2**22 + 1}-{made}{dot}{suffix}"  # Linux has no process of that number


def parts(group):
    files = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(CONF.glob(f"{group}/*.yaml"))}
    return {name: instantiate(OmegaConf.create({"seed": 0, group: text})[group]) for name, text in files.items()}


BLOCKINGS, DECOMPOSITIONS, ESTIMATORS, SCORERS = (parts(group) for group in ("blocking", "decomposition", "estimator", "scorer"))  # by name
FACTORED = [name for name, decomposition in DECOMPOSITIONS.items() if form_of(decomposition) == "matrix"]  # whose layers become U V
NAMES = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in sorted(CONF.iterdir()) if folder.is_dir()
}  # options by group
GROUPS = sorted(group for group in NAMES if (Path(lrp.__file__).parent / group).is_dir() and group != "study")  # of parts of a job
ONCE = {name for name, blocking in BLOCKINGS.items() if getattr(blocking, "reads_metric", False)}  # which no later round cuts anew
PAIRS = list(zip([n for n in NAMES["blocking"] if n not in ONCE], itertools.cycle(["params", "macs"])))  # every other one, with a budget
SHAPES = {
    "small_vgg": (3, 32, 32),
    "narrow_vgg": (3, 32, 32),
    "residual": (3, 9, 8),
    "depthwise": (3, 10, 9),
    "tokens": (3, 5, 4),
    "chain": (4, 11),
    "untraceable": (3, 9, 8),
    "keywords": (12,),
    "encoder": (5, 6),
}


def given_network(request, count):
    """(a network in float64, as many inputs)"""
    return request.getfixturevalue(request.param), torch.randn(count, *SHAPES[request.param]).double()


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


def ranks_of(share, factors, seed=0):
    """Masks of the first components, about a share of them, all of a block that is stored whole."""
    generator, keep = torch.Generator().manual_seed(seed), []
    for f in factors:
        rank = int(f.block.rank * share * 2 * torch.rand((), generator=generator))
        keep.append(torch.arange(f.block.rank) < (f.block.rank if f.block.is_dense(rank) else rank))
    return keep


def prune_network(model, x, blocking="none", share=0.4):
    candidates = find_candidates(model, x[:1])
    factors = decompose(candidates.matrices, cut(BLOCKINGS[blocking], candidates.matrices))
    return candidates, lrp.layer.build.build(model, factors, ranks_of(share, factors))


def flat(y):
    return y.flatten(1)


def measured(model, x, *needs, samples=65536):
    candidates = find_candidates(model, x[:1])
    return candidates, gather(model, candidates, x, needs, flat, samples)


def measured_factors(candidates, decomposition, blocking, found):
    return decompose(candidates.matrices, cut(blocking, candidates.matrices), decomposition, found)


PARTS = {
    "blocking": "none", "scorer": "magnitude", "estimator": "first_order", "selection": "global", "decomposition": "svd",
    "compensation": "none",
}  # fmt: skip


def method_of(keep_factor=None, budget="params", **parts):
    made = {name: make(name, chosen) for name, chosen in (PARTS | parts).items()}
    return SingularVectors(**made, keep_factor=keep_factor, budget=budget)


def same_state(a, b):
    """Whether two networks hold the same tensors, by the same names."""
    mine, theirs = a.state_dict(), b.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def compressed(fitted, sparsity):
    return fitted.compress(fitted.plan(sparsity))[0]


def factors_of(model, blocking):
    matrices = layer_matrices(model)
    return matrices, decompose(matrices, cut(blocking, matrices))


@torch.no_grad()
def slow_differences(model, factor, x):
    """y - y_b of every component (R, B, K)."""
    y, layer, result = model(x), model.get_submodule(factor.block.layer), []
    kind = kind_of(layer)
    original = kind.matrix("", layer).weight.clone()
    for i in range(factor.block.rank):
        changed = original.clone()
        U, V = factor.pair(slice(i, i + 1))
        factor.block.put(changed, factor.block.of(changed) - U @ V)
        kind.set_rows(layer, slice(None), changed)
        result.append(y - model(x))
        kind.set_rows(layer, slice(None), original)
    return torch.stack(result)


def close(a, b, tolerance=1e-9):
    return a.shape == b.shape if not b.numel() else torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def prepared(model, x, blocking):
    candidates = find_candidates(model, x)
    blocks = cut(blocking, candidates.matrices)
    return candidates, blocks, decompose(candidates.matrices, blocks)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_parquet(folder, name, pixels, labels, column="img"):
    folder.mkdir(exist_ok=True, parents=True)
    pd.DataFrame({column: [png(p) for p in pixels], "label": labels}).to_parquet(folder / name)


def write_images(folder, splits=("",), classes=("a", "b", "c"), count=30):
    generator = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 90, (20 + i % 4, 24, 3), dtype=np.uint8)
                pixels[..., number % 3] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


RESULT_LAYERS = pd.DataFrame(
    {"sparsity": [0.5], "layer": ["a"], "block": [0], "shape": ["2x2"], "kept": [1], "full": [2], "dense": [False]}
)


def results_row(sparsity=0.5, **changes):
    base = dict.fromkeys(COLUMNS, 0) | {
        "model": "vgg16",
        "checkpoint_sha256": "aa",
        "dataset": "cifar10",
        "method": "singular_vectors",
        "blocking": "none",
        "decomposition": "svd",
        "scorer": "variance",
        "estimator": "exact",
        "selection": "global",
        "per_parameter": False,
        "budget": "params",
        "compensation": "none",
        "recovery": "none",
        "sparsity": sparsity,
        "sparsity_params": sparsity,
        "accuracy": 0.5,
        "accuracy_dense": 0.9,
        "blocking_k": None,
    }
    return base | changes


def results_table(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def assert_near(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def refused(call, *parts):
    """One sentence that holds all these words; it."""
    with pytest.raises(lrp.InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    assert all(part in text for part in parts), text
    return text


def made_data(train=144, held_out=16, test=64):
    """Noise of uint8, in which the first channel's brightness tells something of the class."""
    generator = torch.Generator().manual_seed(0)

    def part(count, index):
        labels = torch.randint(10, (count,), generator=generator)
        images = torch.randint(128, (count, 3, 32, 32), generator=generator)
        images[:, 0] += 12 * labels[:, None, None]
        return Part(images.to(torch.uint8), labels, index)

    order = torch.randperm(train + held_out, generator=generator)
    parts = part(train, order[:train]), part(held_out, order[train:]), part(test, torch.arange(test))
    return Data("made", *parts, (0.5,) * 3, (0.25,) * 3, 0, False, 10)


SEED = 5  # of the studies


def study_place(data, folder):
    return Place(data, SEED, torch.device("cpu"), folder)


def one_channel_vgg(in_channels=1, num_classes=10):
    return VGG16(in_channels, num_classes, width=1 / 32)


def small(model, x, sparsity=0.5, **options):
    """``lrp.compress`` on a few inputs."""
    return lrp.compress(model, x, sparsity, **{"scoring_images": 4, "images": 8} | options)

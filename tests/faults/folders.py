"""Damaged folders of networks of transformers: ``lrp.load`` gives the network that was saved, or a sentence."""

from __future__ import annotations

import importlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.damage import damaged
from torch import Tensor

import lrp

FILES = ("config.json", "lrp.safetensors")
LONGEST = 600  # characters of a sentence
EDITS: dict[str, dict[str, Any]] = {  # most of them fit every tensor
    "other heads": {"n_head": 4},
    "another activation": {"activation_function": "relu"},
    "another epsilon": {"layer_norm_epsilon": 0.1},
    "no scale": {"scale_attn_weights": False},
    "a layer more": {"n_layer": 2},
    "10^9 positions": {"n_positions": 10**9},
    "10^9 layers": {"n_layer": 10**9},
    "another class": {"architectures": ["GPT2Model"]},
    "a function": {"architectures": ["pipeline"]},
    "no class": {"architectures": None},
    "another type": {"model_type": "gpt_neo"},
    "a type that there is not": {"model_type": "poem"},
    "code": {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"},
    "tied no more": {"tie_word_embeddings": False},
}


def _gpt2(**options: Any) -> Any:
    transformers = importlib.import_module("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, **options
    )
    return transformers.GPT2LMHeadModel(config).eval()


def _tokens() -> Tensor:
    return torch.randint(0, 40, (16, 8), generator=torch.Generator().manual_seed(0))


def _outputs(network: Any) -> bytes:
    with torch.no_grad():
        return network(_tokens()).logits.numpy().tobytes()


def saved_folders(work: Path) -> list[Path]:
    """Two folders of one architecture, and one of the same with another activation."""
    torch.manual_seed(0)
    found = []
    for number, options in enumerate(({}, {}, {"activation_function": "relu"})):
        small, _ = lrp.compress(_gpt2(**options), _tokens(), 0.4, samples=256, scoring_images=4)
        shutil.rmtree(work / f"folder{number}", ignore_errors=True)
        lrp.save(small.eval(), work / f"folder{number}")
        found.append(work / f"folder{number}")
    return found


def _outcome(folder: Path, right: bytes) -> str:
    """What ``lrp.load`` makes of a folder: "refused", "the same", or what is wrong."""
    try:
        found = lrp.load(folder)
    except lrp.InputError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) <= LONGEST else f"no sentence: {str(error)[:200]!r}"
    except BaseException as error:  # whatever it is, it is no sentence
        return f"raises {type(error).__name__}: {str(error)[:200]}"
    return "the same" if _outputs(found) == right else "another network"


def folders(work: Path, times: int, chance: random.Random, count: Callable[[str, str], None]) -> None:
    """Damage a file of a folder so many times, and edit, exchange and take away files; ``count`` gets outcomes and what was done."""
    places, trial = saved_folders(work), work / "folder"
    rights = [_outputs(lrp.load(place)) for place in places]

    def tried(number: int, what: str, change: Callable[[Path], object]) -> None:
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(places[number], trial)
        change(trial)
        count(_outcome(trial, rights[number]), f"a folder with {what}")

    for _ in range(times):
        number, name = chance.randrange(len(places)), chance.choice(FILES)
        kind, data = damaged((places[number] / name).read_bytes(), chance)
        tried(number, f"{name} {kind}", lambda folder, name=name, data=data: (folder / name).write_bytes(data))
    for what, options in EDITS.items():

        def edit(folder: Path, options: dict[str, Any] = options) -> None:
            held = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**held, **options}))

        tried(0, what, edit)
    for number, other in ((0, 2), (2, 0), (1, 2), (2, 1)):  # of another config; two files of one config are two networks, both whole
        for name in FILES:
            source = places[other] / name
            tried(number, f"{name} of another", lambda folder, name=name, source=source: shutil.copy(source, folder / name))
    for name in FILES:
        tried(0, f"no {name}", lambda folder, name=name: (folder / name).unlink())
        tried(0, f"a folder as {name}", lambda folder, name=name: ((folder / name).unlink(), (folder / name).mkdir()))

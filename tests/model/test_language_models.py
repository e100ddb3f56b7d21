"""The small language model, and networks of transformers from a folder."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import lrp
from lrp.config.build import compose_job
from lrp.errors import InputError
from lrp.model.huggingface import huggingface
from lrp.model.small_lm import SmallLM
from lrp.model.tokens import run_or_explain


def run_words(folder, *words):
    """The table of a job in this process."""
    job = compose_job(*words, f"cache_dir={folder}/cache", "threads=1", "tracker=none")
    job.run(folder / "run")
    return pd.read_csv(folder / "run" / "results.csv")


def test_a_token_sees_what_came_before():
    model, ids = SmallLM(30, 16, 2, 4, 12).eval(), torch.randint(0, 30, (3, 12))
    found = model(ids)
    assert found.shape == (3, 12, 30)
    ids[:, 7] = (ids[:, 7] + 1) % 30
    changed = (model(ids) != found).any(-1)
    assert not changed[:, :7].any() and changed[:, 7:].all()


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(InputError, match="model.heads=3: must divide model.width=16"):
        SmallLM(30, 16, heads=3)


@pytest.mark.slow
def test_a_language_model_from_the_shell(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat, and the dog sat by the cat. " * 80)
    words = [
        "experiment=language_model", "hydra.mode=RUN", "method=output_aware", f"dataset.path={tmp_path}/a.txt", "dataset.length=16",
        "model.width=16", "model.layers=1", "model.heads=2", "model.training.epochs=2", "calibration.images=32",
        "calibration.scoring_images=8", "sparsity.grid=[0,0.5]",
    ]  # fmt: skip
    table = run_words(tmp_path, *words)
    assert list(table["divergence"])[0] == 0 and 0 < table["divergence"][1] < 3
    assert table["perplexity_dense"].nunique() == 1 and table["perplexity"][0] == table["perplexity_dense"][0] < 250
    assert abs(torch.tensor(table["loss"]).exp() - torch.tensor(table["perplexity"])).max() < 1e-6


@pytest.mark.slow
def test_a_network_of_transformers_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=256, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 120)
    words = [
        "experiment=language_model", "hydra.mode=RUN", "method=output_aware", "model=huggingface", f"model.path={tmp_path}/gpt2",
        f"dataset.path={tmp_path}/a.txt", "dataset.length=16", "calibration.images=32", "calibration.scoring_images=8",
        "sparsity.grid=[0.4]", "save=true",
    ]  # fmt: skip
    table = run_words(tmp_path, *words)
    assert table["sparsity_params"][0] >= 0.4 and 0 < table["divergence"][0] < 1
    again = lrp.load(next(tmp_path.glob("**/model-0.4.safetensors")), huggingface(str(tmp_path / "gpt2")))
    assert again.generate(torch.randint(0, 256, (1, 4)), max_new_tokens=3, do_sample=False).shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": None}, "model.path=null: must be a folder that save_pretrained wrote"),
        ({"path": "nowhere"}, "model.path=nowhere: must be a folder"),
        ({"path": "{}"}, "transformers cannot load it"),
        ({"path": "{}", "task": "poetry"}, "model.task=poetry: choose one of causal_lm, masked_lm"),
    ],
)
def test_one_sentence(tmp_path, options, said):
    pytest.importorskip("transformers")
    options = {name: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(InputError, match=said):
        huggingface(**options)


@pytest.mark.parametrize(("length", "tokens", "said"), [
    (40, 20, "^dataset.length=40: model=x: the network takes at most 12 tokens$"),
    (13, 20, "^dataset.length=13: model=x: the network takes at most 12 tokens$"),
    (12, 40, r"^model=x: the network cannot run .*: it runs on the token 0 and not on 39; set dataset.tokenizer to its own tokenizer$"),
])  # fmt: skip
def test_more_tokens_than_a_network_takes(length, tokens, said):
    model, ids = SmallLM(30, 16, 1, 4, 12).eval(), torch.arange(length)[None] % tokens
    ids[0, 0] = tokens - 1
    with pytest.raises(InputError, match=said):
        run_or_explain(model, ids, "model=x: ")


def test_inputs_that_are_no_tokens_are_refused_as_before():
    with pytest.raises(InputError, match=r"^model=x: the network cannot run on inputs of shape \(2, 5\) and type float32"):
        run_or_explain(torch.nn.Linear(4, 3), torch.ones(2, 5), "model=x: ")


def _lacking(folder, name):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(name)
    save_file(tensors, file, metadata={"format": "pt"})


def _not_finite(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})


def _configured(folder, **options):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **options}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda folder: _lacking(folder, "transformer.h.0.mlp.c_fc.weight"),
            "its files lack transformer.h.0.mlp.c_fc.weight of the GPT2LMHeadM",
        ),
        (lambda folder: _configured(folder, n_layer=2), "its files lack transformer.h.1"),
        (lambda folder: _configured(folder, n_positions=16), "transformers cannot load it|its files lack transformer.wpe.weight"),
        (_not_finite, "values that are not finite"),
        (lambda folder: sorted(folder.glob("model-*.safetensors"))[1].unlink(), "transformers cannot load it"),
    ],
)
def test_weights_that_a_folder_lacks_are_not_drawn(tmp_path, damage, said):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    shards = {"max_shard_size": "8KB"} if "transformers cannot load it" == said else {}
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path, **shards)
    assert isinstance(huggingface(str(tmp_path)), torch.nn.Module)
    damage(tmp_path)
    with pytest.raises(InputError, match=said) as error:
        huggingface(str(tmp_path))
    assert "\n" not in str(error.value)

"""Compressed networks of transformers in folders."""

import json

import pytest
import torch
from torch import nn

import lrp

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=60, n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    return lrp.compress(transformers.GPT2LMHeadModel(config), torch.randint(0, 60, (32, 12)), 0.4)[0].eval()


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_holds_all_that_is_needed(small, tmp_path, there):
    folder = tmp_path / "small"
    if there:
        folder.mkdir()
    lrp.save(small, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "generation_config.json", "lrp.safetensors"]
    x = torch.randint(0, 60, (2, 6))
    config = transformers.AutoConfig.from_pretrained(folder)
    for again in (
        lrp.load(folder),
        lrp.load(folder, transformers.AutoModelForCausalLM.from_config(config)),
        lrp.load(folder / "lrp.safetensors"),
    ):
        assert torch.equal(again(x).logits, small(x).logits)
        assert torch.equal(again.generate(x, max_new_tokens=4, do_sample=False), small.generate(x, max_new_tokens=4, do_sample=False))


def test_one_sentence(small, tmp_path):
    for path, said in ((tmp_path, "the folder holds no lrp.safetensors"), (tmp_path / "a.safetensors", "there is no config.json beside")):
        if path != tmp_path:
            lrp.save(small, path)
        with pytest.raises(lrp.InputError, match=said) as error:
            lrp.load(path)
        assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text('{"model_type": "poem"}')
    with pytest.raises(lrp.InputError, match="transformers cannot make the network of config.json"):
        lrp.load(tmp_path / "a.safetensors")
    with pytest.raises(lrp.InputError, match="is a folder; give the name of a file in it"):
        lrp.save(nn.Linear(2, 2), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"n_head": 4}, {"activation_function": "relu"}, {"layer_norm_epsilon": 0.1}, {"scale_attn_weights": False}, {"n_layer": 2},
        {"architectures": ["GPT2Model"]}, {"more": 1},
    ],
)  # fmt: skip
def test_an_edited_config_is_not_another_network(small, tmp_path, change):
    """Most of these fit the tensors of the file."""
    lrp.save(small, tmp_path / "small")
    file = tmp_path / "small" / "config.json"
    held = json.loads(file.read_text())
    file.write_text(json.dumps({**held, "transformers_version": "0"}, separators=(",", ":")))  # says the same
    x = torch.randint(0, 60, (2, 6))
    assert torch.equal(lrp.load(tmp_path / "small")(x).logits, small(x).logits)
    file.write_text(json.dumps({**held, **change}))
    for path in (tmp_path / "small", tmp_path / "small" / "lrp.safetensors"):
        with pytest.raises(lrp.InputError, match="config.json beside it is not the one that lrp.save wrote; it was changed or damaged"):
            lrp.load(path)
    assert torch.equal(lrp.load(tmp_path / "small", transformers.GPT2LMHeadModel(small.config))(x).logits, small(x).logits)


@pytest.mark.parametrize("name", ["pipeline", "TrainingArguments", "AutoModel", "nothing", 5])
def test_a_config_names_networks_alone(small, tmp_path, name):
    """Also beside a file that knows of no config."""
    lrp.save(small, tmp_path / "a.safetensors")
    small.config.save_pretrained(tmp_path)
    held = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**held, "architectures": [name]}))
    with pytest.raises(lrp.InputError, match="transformers cannot make the network of config.json"):
        lrp.load(tmp_path / "a.safetensors")

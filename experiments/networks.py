"""Which networks lrp compresses as they come: one row per network, with random weights, at half of the parameters.

    python experiments/networks.py --out experiments/results/networks.csv [names]

Each runs in a process of its own. Columns: the share of the whole network's parameters that went, and of its multiply-accumulates; what the
report says was left alone; whether ``lrp.save`` and ``lrp.load`` give the same outputs back, and whether onnxruntime gives the same from
``lrp.export_onnx``; the time of the compressed network over that of the dense one (median of alternations, one thread).
The networks have the layers and the calls of those that people use, most of them in smaller widths. Rows are added as they come.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from own_process import Stopped, measured
from torch import Tensor, nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches, call, tensors
from lrp.cost.timing import alternate
from lrp.files import write_whole

SPARSITY, EXAMPLES = 0.5, 32
Made = tuple[nn.Module, Any, dict[str, Any]]  # the network, calibration as a DataLoader would give it, keywords of lrp.compress
NETWORKS: dict[str, Callable[[], Made]] = {}


def network(function: Callable[[], Made]) -> Callable[[], Made]:
    """Enter a maker under its name."""
    NETWORKS[function.__name__.replace("_", "-")] = function
    return function


def batches(make: Callable[[int], Any], size: int = 8) -> list[Any]:
    """Batches of ``size`` examples."""
    return [make(size) for _ in range(EXAMPLES // size)]


def images(size: int, channels: int = 3) -> list[Tensor]:
    """Batches of square images."""
    return batches(lambda count: torch.randn(count, channels, size, size))


def words(vocabulary: int, length: int = 16) -> list[dict[str, Tensor]]:
    """Batches as a tokenizer gives them, of different lengths."""

    def make(count: int) -> dict[str, Tensor]:
        long = int(torch.randint(length // 2, length + 1, ()))
        ids, mask = torch.randint(3, vocabulary, (count, long)), torch.ones(count, long, dtype=torch.long)
        mask[0, long // 2 :] = 0
        return {"input_ids": ids, "attention_mask": mask}

    return batches(make)


@network
def resnet50() -> Made:
    from torchvision.models import resnet50

    return resnet50(num_classes=10), images(64), {}


@network
def convnext_tiny() -> Made:
    from torchvision.models import convnext_tiny

    return convnext_tiny(num_classes=10), images(64), {}


@network
def efficientnet_b0() -> Made:
    from torchvision.models import efficientnet_b0

    return efficientnet_b0(num_classes=10), images(64), {}


@network
def vit_b_16() -> Made:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(64, 16, 4, 4, 192, 768, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # which torchvision begins at zero, so that nothing would change the outputs
    return model, images(64), {}


@network
def swin_t() -> Made:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 48, [2, 2, 2], [3, 6, 12], [7, 7], num_classes=10), images(64), {}


@network
def deeplabv3() -> Made:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return deeplabv3_mobilenet_v3_large(weights_backbone=None, num_classes=5), images(64), {"output": lambda result: result["out"]}


@network
def faster_rcnn() -> Made:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights_backbone=None, num_classes=5, min_size=96, max_size=128)
    pictures = [[torch.rand(3, 80 + 8 * i, 96) for i in range(2)] for _ in range(4)]
    return model, pictures, {"inputs": lambda batch: (batch,), "output": _scores}


def _scores(result: Any) -> Tensor:
    """As many numbers of each image: the scores of the boxes, the highest first."""
    return torch.stack([F.pad(each["scores"], (0, 100))[:100] for each in result])


class Double(nn.Sequential):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """Down, up by transposed convolutions, and across."""

    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.a, self.b, self.c = Double(channels, 16), Double(16, 32), Double(32, 64)
        self.up1, self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2), nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.d, self.e, self.head = Double(64, 32), Double(32, 16), nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([b, self.up1(c)], 1))
        return self.head(self.e(torch.cat([a, self.up2(d)], 1)))


@network
def u_net() -> Made:
    return UNet(), images(32), {}


class Denoiser(nn.Module):
    """A U-Net that is told the step."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.inner = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 3)), UNet(3, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-torch.arange(8) / 2.0)
        return self.inner(x + self.time(torch.cat([angles.sin(), angles.cos()], 1))[:, :, None, None])


@network
def diffusion() -> Made:
    return Denoiser(), batches(lambda count: (torch.randn(count, 3, 32, 32), torch.rand(count))), {}


@network
def bert() -> Made:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=500, hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384, max_position_embeddings=64
    )
    return BertForSequenceClassification(config), words(500), {}


@network
def gpt2() -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=500, n_positions=64, n_embd=96, n_layer=3, n_head=4)), words(500), {}


@network
def llama() -> Made:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=500, hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config), words(500), {}


@network
def mixtral() -> Made:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=4, max_position_embeddings=64,
    )  # fmt: skip
    return MixtralForCausalLM(config), words(500), {}


@network
def t5() -> Made:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=500, d_model=96, d_kv=24, d_ff=256, num_layers=2, num_heads=4, decoder_start_token_id=0)
    made = [{**batch, "decoder_input_ids": torch.randint(3, 500, (len(batch["input_ids"]), 8))} for batch in words(500)]
    return T5ForConditionalGeneration(config), made, {}


@network
def whisper() -> Made:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=500, num_mel_bins=20, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, d_model=64, encoder_ffn_dim=256, decoder_ffn_dim=256, max_source_positions=50,
        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    made = batches(lambda count: {"input_features": torch.randn(count, 20, 100), "decoder_input_ids": torch.randint(3, 500, (count, 8))})
    return WhisperForConditionalGeneration(config), made, {}


@network
def wav2vec2() -> Made:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        vocab_size=30, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, conv_dim=(32, 32, 32),
        conv_stride=(5, 4, 4), conv_kernel=(10, 8, 8), num_feat_extract_layers=3, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    return Wav2Vec2ForCTC(config), batches(lambda count: {"input_values": torch.randn(count, 1600)}), {}


class Crnn(nn.Module):
    """Convolutions, two LSTMs over the columns, letters: sequence first."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 1))
        )
        self.lstm, self.head = nn.LSTM(128, 64, 2, bidirectional=True), nn.Linear(128, 30)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x).flatten(1, 2).permute(2, 0, 1)
        return self.head(self.lstm(f)[0]).transpose(0, 1)


@network
def crnn() -> Made:
    return Crnn(), batches(lambda count: torch.randn(count, 1, 16, 32)), {}


class Tagger(nn.Module):
    """Words, an LSTM, tags."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.head = nn.Embedding(500, 64), nn.LSTM(64, 96, batch_first=True), nn.Linear(96, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(ids))[0])


@network
def lstm_tagger() -> Made:
    return Tagger(), batches(lambda count: torch.randint(0, 500, (count, 12))), {}


class Encoder(nn.Module):
    """torch's own encoder, sequence first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 256), 3, enable_nested_tensor=False)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x.transpose(0, 1)).mean(0))


@network
def torch_encoder() -> Made:
    return Encoder(), batches(lambda count: torch.randn(count, 10, 64)), {}


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal up to rounding."""
    return all(torch.allclose(x.float(), y.float(), rtol=1e-3, atol=1e-4) for x, y in zip(tensors(a), tensors(b), strict=True))


def onnx_agrees(model: nn.Module, inputs: Any, file: Path) -> bool:
    """Whether onnxruntime gives what the network gives."""
    import onnxruntime

    model = copy.deepcopy(model)
    if hasattr(model, "config"):  # of transformers: the file gives no cache, so the network is not to give one either
        model.config.use_cache = False
    lrp.export_onnx(model, inputs, file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = [tensor.numpy() for tensor in tensors(inputs)]
    found = session.run(None, dict(zip((each.name for each in session.get_inputs()), given, strict=True)))
    expected = [tensor.detach() for tensor in tensors(call(model, inputs))]
    return all(torch.allclose(torch.tensor(a), b, rtol=1e-3, atol=1e-4) for a, b in zip(found, expected))


def attempt(function: Callable[[], Any]) -> str:
    """yes, no, or why not."""
    try:
        return "yes" if function() else "no"
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"


def measure(name: str) -> dict[str, Any]:
    """The row of one network."""
    torch.manual_seed(0)
    model, calibration, options = NETWORKS[name]()
    model.eval()
    row: dict[str, Any] = {"network": name, "parameters": sum(p.numel() for p in model.parameters())}
    try:
        small, report = lrp.compress(model, calibration, SPARSITY, **options)
    except Exception as error:
        return row | {"runs": f"{type(error).__name__}: {str(error)[:300]}"}
    totals = report.attrs
    row |= {
        "runs": "yes", "removed": 1 - totals["params_total"] / totals["params_total_dense"],
        "macs_removed": 1 - totals["macs"] / totals["macs_dense"],
        "said": "; ".join(warning for warning in report.warnings if "left alone" in warning),
    }  # fmt: skip
    known = {"inputs": options["inputs"]} if "inputs" in options else {}
    batch = next(iter(Batches.of(calibration, None, model=model, **known).split(4)))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"

        def loaded() -> bool:
            lrp.save(small, file)
            return same(call(lrp.load(file, model=copy.deepcopy(model)), batch), call(small, batch))

        row["saves"] = attempt(loaded)
        row["onnx"] = attempt(lambda: onnx_agrees(small, batch, file.with_suffix(".onnx")))
        ways: list[Any] = [lambda: call(model, batch), lambda: call(small, batch)]
        dense, compressed = alternate(ways, torch.device("cpu"), 2.0, least=7, most=60)
        row["time"] = compressed.median / dense.median
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)} (all)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", action="store_true", help="in this process, and only print the row")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in NETWORKS]:
        parser.error(f"{unknown[0]}: not a network that is known; choose from {', '.join(NETWORKS)}")
    torch.set_num_threads(1)
    if args.one:
        print(pd.Series(measure(args.names[0])).to_json())
        return
    rows = {each["network"]: each for each in pd.read_csv(args.out).to_dict("records")} if args.out.exists() else {}
    for name in args.names or [name for name in NETWORKS if name not in rows]:
        try:
            rows[name] = measured(__file__, name, "--one", "--out", args.out)
        except Stopped as stopped:
            rows[name] = {"network": name, "runs": f"stopped: {str(stopped)[-300:]}"}
        print(rows[name], flush=True)
        table = pd.DataFrame([rows[each] for each in NETWORKS if each in rows])
        write_whole(args.out, lambda path, table=table: table.to_csv(path, index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()

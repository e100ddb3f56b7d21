"""A network compressed block by block, from files to files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.batches import Batches
from lrp.config.method import make_method
from lrp.config.parts import make
from lrp.errors import InputError, check_int, check_sparsity
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.files import sha256
from lrp.group import Group
from lrp.heap import given_back
from lrp.model.unfilled import empty_parameters
from lrp.network.arithmetic import plain_arithmetic
from lrp.streaming.naming import check_layers, names_of_blocks
from lrp.streaming.run import OUTPUTS, Run
from lrp.streaming.skeleton import Skeleton
from lrp.streaming.spool import Work
from lrp.streaming.weights import Weights
from lrp.streaming.writing import folder_to_write

log = logging.getLogger(__name__)


def compress_blocks(
    model: Callable[[], nn.Module],
    weights: str | Path,
    calibration: Any,
    sparsity: float,
    folder: str | Path,
    *,
    blocks: Sequence[str] | str,
    images: int = 128,
    scoring_images: int = 32,
    samples: int = 65536,
    batch_size: int = 8,
    inputs: Callable[[Any], Any] | None = None,
    output: Callable[[Any], Tensor] | None = None,
    estimator: Any = None,
    compensation: Any = "least_squares",
    forms: str | Sequence[str] = "auto",
    exclude: Sequence[str] = (),
    group: Any = None,
) -> pd.DataFrame:
    """Compress a network that need not fit into memory: of its weights those of one block are held at a time, or those before and behind
    the blocks. What goes from block to block is kept on the disk, and so is everything that was found: the same call goes on after a kill,
    from the last finished block.

    Components of the blocks' layers are scored by the perturbation of the network's outputs, selected over all blocks together, and
    compensated by least squares from what the compressed blocks before give, as ``lrp.compress`` does with
    ``scorer="perturbation"``. Gradients of the outputs are found block by block, backwards, from what each block reads.

    Args:
        model: Makes the network; its parameters get no values, and no memory.
        weights: The .safetensors file with its state, an index (.index.json) of several, or a folder that holds one of them.
        calibration: Unlabelled examples as the network takes them. Batches of dicts with an ``attention_mask`` may differ in length, and
            padding does not count.
        sparsity: The share of the parameters of the blocks' layers to remove, in [0, 1).
        folder: Where the compressed network goes, one file for each block, and an index; unfinished work lies in its folder ``work``.
        blocks: The names of the blocks in the order in which they run; or of the list that holds them, such as ``model.layers``. Each
            reads what the one before it gives.
        images: How many examples are used.
        scoring_images: How many of them scores look at.
        samples: About how many positions of a layer's output are looked at, in all examples together.
        batch_size: How many examples run at once.
        inputs: Says of each batch of ``calibration`` what the network is called with, as in ``lrp.compress``.
        output: Finds the tensor of outputs in what the network returns.
        estimator: How outputs are read: a name or an object; by default ``first_order`` on the logits.
        compensation: How what is kept is refitted: a name or an object.
        forms: In which forms a layer may be stored, as in ``lrp.compress``.
        exclude: Names of layers or of modules that contain them, or shell patterns (``*.down_proj``): they are left alone.
        group: A ``torch.distributed.ProcessGroup`` whose processes share the work: each calls this with the same arguments, and all of
            them see the folder. Each holds one block, and looks at its own part of the examples.

    Returns:
        One row for each layer of each block, as in the report of ``lrp.compress``.

    Raises:
        InputError: For what cannot be used.
        OSError: Where there is no room, or the folder cannot be written. Once there is, the same call goes on.
    """
    together = Group(group)
    with together.agreed():
        check_sparsity("sparsity", sparsity)
        for name, value in (("images", images), ("scoring_images", scoring_images), ("samples", samples), ("batch_size", batch_size)):
            check_int(name, value, 1)
        if not callable(model) or isinstance(model, nn.Module):
            raise InputError("model", type(model).__name__, "give a function that makes the network, so that its weights need no memory")
        with empty_parameters():
            skeleton_model = model()
        if not isinstance(skeleton_model, nn.Module):
            raise InputError("model", type(skeleton_model).__name__, "give a function that makes a torch.nn.Module")
        held, exclude = Weights(weights), (exclude,) if isinstance(exclude, str) else tuple(exclude)
        skeleton = Skeleton(skeleton_model, names_of_blocks(skeleton_model, blocks), held)
        check_layers(skeleton.model, skeleton.blocks, exclude)
        given = Batches.of(calibration, images, model=skeleton_model, inputs=inputs)
        read = make("estimator", "first_order" if estimator is None else estimator)
        read = read if output is None else replace(read, output_fn=output)
        refit = make("compensation", compensation)
        if hasattr(refit, "with_network"):
            raise InputError("compensation", refit.name, "it needs the whole network, and blocks are held one at a time")
        method: Any = make_method(
            "singular_vectors",
            {"blocking": "none", "decomposition": "svd", "scorer": "perturbation", "estimator": FirstOrderEstimator(projections=OUTPUTS),
             "selection": "lagrangian", "compensation": refit},
            {"budget": "params", "macs_removed": None, "forms": forms, "exclude": (), "samples": samples},
        )  # fmt: skip
        asked = [sparsity, len(given), scoring_images, samples, batch_size, read.identity, repr(refit), sorted(method.usable_forms)]
        settings = [*asked, skeleton.blocks, sorted(exclude)]
        to, seen = folder_to_write(folder), sha256([json.dumps([*settings, str(skeleton_model)]), *given.hashes(batch_size)])
    together.check_same(lambda: (seen, held.sizes), "weights, examples or options")
    key = together.from_first(sha256([seen, held.identity]))
    with Work(to / "work", key, together) as work, given_back(), plain_arithmetic(torch.device("cpu")):
        run = Run(skeleton, given, batch_size, min(scoring_images, len(given)), exclude, read, method, work)
        run.forward()
        run.backward()
        return run.compress(sparsity, to)

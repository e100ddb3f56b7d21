"""The columns of results.csv, each described once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrp.errors import InputError

COMMON = ("study", "dataset", "seed")  # of every study's table, before the study's own
_ALWAYS = "always"


@dataclass(frozen=True)
class Column:
    """One column of results.csv.

    Attributes:
        name: As it stands in the file.
        meaning: What it holds, in one line.
        measured: What the row was found to be; otherwise what was asked for, which tells lines of a figure apart.
        before: What rows of tables that lack the column have; "always" where no table lacks it.
    """

    name: str
    meaning: str
    measured: bool = False
    before: Any = _ALWAYS


def _asked(name: str, meaning: str, before: Any = _ALWAYS) -> Column:
    return Column(name, meaning, False, before)


def _measured(name: str, meaning: str, before: Any = _ALWAYS) -> Column:
    return Column(name, meaning, True, before)


def _latency(images: int) -> list[Column]:
    whose = {"latency_dense": "dense", "latency": "pruned"}
    return [
        _measured(f"{name}_{images}{suffix}", f"{what} of a forward pass of {images} image(s) through the {network} network (ms)", None)
        for name, network in whose.items()
        for suffix, what in (("", "median"), ("_iqr", "interquartile range"))
    ]


DESCRIBED = (
    _asked("model", "name of the network, or the dotted path of your own"),
    _asked(
        "checkpoint_sha256",
        "hash of the file of the dense network's weights, or of the weights that were trained here",
    ),
    _asked("dataset", "name of the data set"),
    _asked("method", "name of the method, or of the combination of parts"),
    _asked("blocking", "part: how layers are cut into blocks"),
    _asked("decomposition", "part: how blocks are decomposed"),
    _asked("scorer", "part: what a component is worth"),
    _asked("estimator", "part: how the change of the outputs is found"),
    _asked("scoring_images", "calibration images that scores look at"),
    _asked("selection", "part: which components stay"),
    _asked("per_parameter", "whether a score is divided by what its component costs"),
    _asked("round_to", "ranks are multiples of it", 1),
    _asked("break_even", "where a block is left whole: params or measured", "params"),
    _asked("exclude", "layers left alone, divided by spaces", None),
    _asked("budget", "what the sparsity is a share of: params, macs or milliseconds"),
    _asked("compensation", "part: how what is kept is refitted"),
    _asked("rounds", "how often the network was scored on the way to the sparsity"),
    _asked("recovery", "part: what is done to the pruned network"),
    _asked("options", "every option of the parts that is not at its default, by its full name", None),
    _asked("seed", "seed of the job"),
    _asked("sparsity", "share of the budget to remove"),
    _measured("sparsity_params", "share of the compressed layers' parameters removed"),
    _measured("sparsity_macs", "share of the compressed layers' multiply-accumulates removed"),
    _measured(
        "params", "parameters of the compressed layers, biases apart; where zeros are stored (layers.csv: masked) those that are not"
    ),
    _measured("params_dense", "the same of the dense network"),
    _measured("params_total", "parameters of the whole network as it is stored, zeros among them"),
    _measured("params_total_dense", "the same of the dense network"),
    _measured("macs", "multiply-accumulates of the whole network for one image"),
    _measured("macs_dense", "the same of the dense network"),
    _asked("part", "images that accuracies are measured on: test or validation", "test"),
    _measured("accuracy", "top-1 accuracy in [0, 1], after recovery"),
    _measured("accuracy_before_recovery", "top-1 accuracy in [0, 1], before recovery"),
    _measured("accuracy_dense", "top-1 accuracy of the dense network in [0, 1]"),
    _measured("loss", "mean cross entropy after recovery (nats)"),
    _measured("perturbation_additive", "sum of the removed components' perturbations, over the outputs' energy", None),
    _measured("perturbation_joint", "first-order change of the outputs by all of them at once, over the energy", None),
    _measured("perturbation_true", "change of the outputs of the pruned network, over the energy", None),
    _measured("blocks", "blocks of all layers"),
    _measured("components", "components of all blocks"),
    _measured("components_kept", "components that stay"),
    *_latency(1),
    *_latency(64),
    _measured("latency_threads", "threads that latency was measured with", None),
    _measured("latency_device", "device that latency was measured on", None),
    _measured("seconds_statistics", "seconds for the statistics of layers, once for all sparsities", None),
    _measured("seconds_decompose", "seconds for all decompositions, once for all sparsities"),
    _measured("seconds_score", "seconds for the scores, once for all sparsities"),
    _measured("seconds_select", "seconds to choose what stays"),
    _measured("seconds_compensate", "seconds to refit what is kept", None),
    _measured("seconds_recover", "seconds of the recovery"),
    _asked("blocking_k", "groups of input channels, where the blocking has an option k"),
    _asked("calibration_images", "calibration images"),
    _asked("calibration_seed", "seed that draws them"),
    _measured("threads", "threads of torch, on which the last digits of weights that were trained here depend", None),
)
OF_TEXT = (  # which tables of text alone have
    _measured("perplexity", "of text: e to the loss after recovery", None),
    _measured("perplexity_dense", "the same of the dense network", None),
    _measured("divergence", "of text: mean Kullback-Leibler divergence of the next token from the dense network's (nats)", None),
)
COLUMNS = [column.name for column in DESCRIBED]
TEXT_COLUMNS = [column.name for column in OF_TEXT]
MEASURED = [column.name for column in (*DESCRIBED, *OF_TEXT) if column.measured]
NUMBERS = [column.name for column in DESCRIBED if column.measured and column.name != "latency_device"]
ADDED = {column.name: column.before for column in DESCRIBED if column.before is not _ALWAYS}
LATER = ("threads",)  # columns that a folder from before them goes on without
# Options that have a column besides their word in ``options``, with the values at which they are not listed there.
OWN_COLUMN = {
    "blocking.k": ("blocking_k", 4),
    "selection.per_parameter": ("per_parameter", False),
    "selection.round_to": ("round_to", 1),
    "selection.break_even": ("break_even", "params"),
}

# Of layers.csv.
LAYER_COLUMNS = "sparsity layer block shape kept full dense form".split()


def check_column(name: str | None, numbers: Sequence[str], timed: bool) -> None:
    """That a job's rows will have a number in a column, if any: it is one of these ``numbers``, and latency is measured where it is one.

    Raises:
        InputError: Where they will not.
    """
    if name is None:
        return
    if name not in numbers:
        close = [each for each in numbers if each.startswith(name)] or difflib.get_close_matches(name, numbers, 1, 0.5)
        meant = f"did you mean {close[0]}? " if close else ""
        raise InputError("optimise", name, f"{meant}choose one of {', '.join(numbers)}")
    if name.startswith("latency") and not timed:
        raise InputError("optimise", name, "nothing is timed; add evaluation.latency=true")

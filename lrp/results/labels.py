"""What lines of figures and groups of a dashboard are called: words of the field, from what differs between runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

# Of scores, methods and blockings, where it is not the word itself with its underscores as spaces.
NAMES = {
    "lamp": "LAMP", "snip": "SNIP", "grasp": "GraSP", "noise_to_signal": "noise to signal", "output_aware": "output-aware",
    "alds": "ALDS", "balf": "BALF", "pca": "PCA", "svd_energy": "equal-energy SVD", "svd_uniform": "equal-share SVD",
    "hosvd": "higher-order SVD (Tucker-2)", "input_tucker": "input-norm Tucker-2", "svd_llm": "SVD-LLM", "aa_svd": "AA-SVD",
    "asvd": "ASVD", "kfac_svd": "K-FAC SVD", "lems": "LEMS", "swift_svd": "Swift-SVD", "hap": "HAP", "messi": "MESSI", "erk": "ERK",
    "uniform_plus": "uniform+", "vgg16": "VGG16", "vgg16_slim": "slim VGG16", "resnet20": "ResNet-20", "resnet18": "ResNet-18",
    "lenet_300_100": "LeNet-300-100", "mlp": "MLP", "cifar10": "CIFAR-10", "mnist": "MNIST", "mnist_small": "5,000 digits of MNIST",
    "macs": "MACs", "hellinger": "softened",
}  # fmt: skip
BLOCKINGS = {"none": "whole layers", "alds": "ALDS blocks", "square": "square blocks", "clustered": "clustered blocks"}
# Of a value of a column, or of an option by its full name. Others are told by their own names.
SAID = {
    ("recovery", "none"): "not recovered", ("recovery", "batchnorm"): "batch norm re-estimated", ("recovery", "finetune"): "fine-tuned",
    ("compensation", "none"): "not compensated", ("compensation", "least_squares"): "compensated",
    ("estimator", "exact"): "exact scores", ("estimator", "first_order"): "first-order scores",
    ("per_parameter", "True"): "per parameter", ("per_parameter", "False"): "not per parameter",
    ("per_parameter", "1"): "per parameter", ("per_parameter", "0"): "not per parameter",  # as a column with empty cells is read
    ("break_even", "params"): "break-even of parameters", ("break_even", "measured"): "measured break-even",
    ("exclude", ""): "every layer", ("scorer.depth", "0"): "every layer alike",
    ("forms", "['matrix']"): "matrices alone", ("forms", "['matrix','tucker2','spatial','pivoted','tucker2_pivoted']"): "every form",
}  # fmt: skip
WORDED = {
    "exclude": "without {}", "part": "{} images", "calibration_images": "{} images", "scoring_images": "scored on {} images",
    "checkpoint_sha256": "network {}", "blocking_k": "k = {}", "round_to": "ranks in multiples of {}", "budget": "budget of {}",
    "estimator.output": "{} outputs", "estimator.temperature": "T = {}", "calibration.samples": "{} positions",
    "model": "{}", "dataset": "{}",
}  # fmt: skip


def missing(value: object) -> bool:
    """Whether a cell of a table is empty: None in a table that was just made is NaN in one that was read again."""
    return value is None or bool(pd.isna(value))


def distinct(column: pd.Series) -> int:
    """How many values a column holds; all that is missing (None, NaN) is one."""
    return column.nunique() + int(column.isna().any())


def named(word: object) -> str:
    """A score, a method, a network or a data set as the field calls it."""
    text = str(word)
    return NAMES.get(text, text.replace("_", " "))


def line_kind(row: Mapping[str, Any] | pd.Series) -> str:
    """What a line's colour stands for: the scorer, or a named method."""
    return row["scorer"] if row["method"] == "singular_vectors" else row["method"]


def blocking_label(row: Mapping[str, Any] | pd.Series) -> str:
    """How a row's layers are cut, "" for a method that does not say."""
    blocking, groups = row.get("blocking"), row.get("blocking_k")
    if missing(blocking):
        return ""
    name = BLOCKINGS.get(str(blocking), f"{named(blocking)} blocks")
    return name if blocking == "none" or missing(groups) else f"{name} (k = {_value(groups)})"


def line_label(row: Mapping[str, Any] | pd.Series) -> str:
    """A row's line before other differences are added: the scorer or the named method, and the blocking where it tells more."""
    kind, blocking = named(line_kind(row)), blocking_label(row)
    cut = row["method"] == "singular_vectors" or row.get("blocking") != "none"
    return f"{kind}, {blocking}" if blocking and cut else kind


def said(name: str, value: object) -> str:
    """A column or an option (by its full name) with its value, in words."""
    text = _value(value)
    if (name, text) in SAID:
        return SAID[name, text]
    if name in WORDED:
        return WORDED[name].format(text[:8] if name == "checkpoint_sha256" else named(text))
    short = name.rpartition(".")[2].replace("_", " ")
    return f"{short} = {text}" if "." in name or _number(text) else f"{short} {named(text) or 'none'}"


def apart(found: Sequence[Iterable[tuple[str, object]]]) -> list[str]:
    """Of each line what sets it apart (columns and options with their values), in words; no two lines get the same words."""
    lines = [list(each) for each in found]
    words = [", ".join(said(name, value) for name, value in each) for each in lines]
    return [
        text if words.count(text) == 1 else ", ".join(f"{name}={_value(value) or 'none'}" for name, value in each)
        for text, each in zip(words, lines)
    ]


def _value(value: object) -> str:
    """A value in one way, however it was read: 4 and 4.0 and "4.0" are one, as are True and "True", None and NaN."""
    if missing(value):
        return ""
    if isinstance(value, str) and not _number(value):
        return value
    if str(value) in ("True", "False"):
        return str(value)
    number = float(str(value))
    return f"{number:,.0f}" if number.is_integer() and abs(number) < 1e12 else f"{number:g}"


def _number(text: str) -> bool:
    try:
        return float(text) - float(text) == 0  # neither NaN nor infinity
    except ValueError:
        return False

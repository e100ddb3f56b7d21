"""A network of Hugging Face's transformers, from a folder."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from torch import nn

from lrp.errors import InputError, first_line, some

log = logging.getLogger(__name__)

TASKS = {
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "image_classification": "AutoModelForImageClassification",
}


def huggingface(path: str | None = None, task: str = "causal_lm") -> nn.Module:
    """The network in the folder ``path`` (config.json and weights, as ``save_pretrained`` writes them), for a task: "causal_lm",
    "masked_lm", "sequence_classification" or "image_classification". Nothing is downloaded and no code of the folder runs.

    Raises:
        InputError: For a folder that is not there, a task that there is not, files that transformers cannot load, weights that the files
            lack or that are not finite, and without transformers.
    """
    if task not in TASKS:
        raise InputError("model.task", task, f"choose one of {', '.join(TASKS)}")
    if not isinstance(path, str) or not Path(path).expanduser().is_dir():
        raise InputError("model.path", path, "must be a folder that save_pretrained wrote, with config.json and the weights")
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError("model.path", path, "it needs the package transformers: pip install 'lrp[transformers]'") from error
    try:
        model, found = getattr(transformers, TASKS[task]).from_pretrained(
            str(Path(path).expanduser()), local_files_only=True, trust_remote_code=False, dtype="float32", output_loading_info=True
        )
    except Exception as error:  # whatever transformers raises for files that it does not understand
        raise InputError("model.path", path, f"transformers cannot load it ({first_line(error)})") from error
    lacking = [*map(str, found["missing_keys"]), *(str(entry[0]) for entry in found["mismatched_keys"])]
    if lacking:  # transformers draws them at random
        raise InputError("model.path", path, f"its files lack {some(sorted(lacking))} of the {type(model).__name__} for model.task={task}")
    if found["unexpected_keys"]:
        log.warning("model.path=%s: its files hold %s as well, which are not used", path, some(sorted(map(str, found["unexpected_keys"]))))
    if bad := [name for name, value in model.state_dict().items() if value.is_floating_point() and not bool(value.isfinite().all())]:
        raise InputError("model.path", path, f"{some(bad)}: values that are not finite")
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # nothing here asks for the next token of the same text
    return model


huggingface.reads_files = True  # it cannot be made without them, to see whether its options fit

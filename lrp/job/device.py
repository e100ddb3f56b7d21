"""The device that a job runs on."""

from __future__ import annotations

import torch

from lrp.errors import InputError


def find_device(name: str) -> torch.device:
    """The device named, "auto" being the first GPU where there is one.

    Raises:
        InputError: For a device that does not exist or that torch cannot use here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()  # of meta nothing can be read
    except Exception as error:  # torch raises RuntimeError, AssertionError, NotImplementedError by device
        raise InputError("device", name, "must be auto, cpu, or a device that torch finds here (such as cuda:0)") from error
    return device

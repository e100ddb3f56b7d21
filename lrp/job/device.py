"""The device that a job runs on, and its threads."""

from __future__ import annotations

import os

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


# What says how many threads a process has been given, in this order: joblib sets the first to the processors over the jobs at a time, Ray
# to the num_cpus of a job; Slurm sets the second to --cpus-per-task.
GIVEN = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")


def use_threads(asked: int | None) -> None:
    """Let torch compute with the number of threads that a job asks for; None: with as many as this process has been given, and where
    nobody has given it any, with torch's own number."""
    given = (os.environ.get(name, "").partition(",")[0].strip() for name in GIVEN)
    threads = asked or next((int(text) for text in given if text.isdecimal() and int(text)), None)
    if threads is not None:
        torch.set_num_threads(threads)

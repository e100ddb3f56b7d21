"""Processes that share one calculation, forked from the tests' own."""

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lrp.group import Group


def together(size: int, work: Callable[[Group], Any], folder: Path) -> list[Any]:
    """What ``work`` gives, or the text of what it raises, in each of so many processes; None of one that ended without a word."""
    context = multiprocessing.get_context("fork")
    folder.mkdir(parents=True, exist_ok=True)
    processes = [context.Process(target=_run, args=(rank, size, work, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
            raise AssertionError("the processes wait for each other")
    files = [folder / f"{rank}.pt" for rank in range(size)]
    return [torch.load(file, weights_only=True) if file.exists() else None for file in files]


def _run(rank: int, size: int, work: Callable[[Group], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    try:
        found = work(Group(dist.group.WORLD))
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {error}"
    torch.save(found, folder / f"{rank}.pt")

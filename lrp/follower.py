"""Whether this process was started by torchrun beside others, of which the first speaks and writes for all. Loads no torch."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
FIRST_SPEAKS = 15  # seconds in which the first process ends, where it fails for the same reason, and torchrun with it


def beside_others() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def follows() -> bool:
    """Whether this is one of several processes, and not the first."""
    return beside_others() and os.environ.get("RANK", "0") != "0"


@contextlib.contextmanager
def in_the_background(words: Sequence[str]) -> Iterator[list[str]]:
    """The words of the command line for this process. One that follows prints nothing, unless it fails alone, and its folder is a temporary
    one.

    Raises:
        SystemExit: As what runs inside.
    """
    if not follows():
        yield [*words]
        return
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.CRITICAL)
    own, said = [word for word in words if not word.startswith(tuple(f"{name}=" for name in FOLDERS))], io.StringIO()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="lrp-") as folder,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
        ):
            yield [*own, *(f"{name}={folder}" for name in FOLDERS)]
    except SystemExit as stop:
        if stop.code:
            time.sleep(FIRST_SPEAKS)
            print(f"process {os.environ['RANK']}: {said.getvalue()}", file=sys.stderr, end="")
        raise

"""What was freed goes back to the system."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, sys, torch
from pathlib import Path
from lrp.heap import given_back

def held():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")).split()[1]) / 1024

with given_back() if sys.argv[1] == "inside" else contextlib.nullcontext():
    before = held()
    torch.empty(25 * 2**20, dtype=torch.uint8).fill_(1)  # freed at once: otherwise glibc keeps blocks of up to this size from now on
    blocks = [torch.ones(2**19) for _ in range(60)]  # 2 MiB each
    del blocks[:-1]  # the last one lies above the others
    print(round(held() - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it changes is glibc's")
@pytest.mark.long
def test_freed_blocks_go_back():
    """In processes of their own: free blocks of what came before would be taken first."""
    outside, inside = (
        int(subprocess.run([sys.executable, "-c", SCRIPT, where], capture_output=True, text=True, check=True).stdout)
        for where in ("outside", "inside")
    )
    assert inside <= 6 and outside > 60, (outside, inside)  # MiB


BETWEEN = """
import torch
from lrp.heap import give_back
HELD
blocks = [torch.ones(2**13) for _ in range(2000)]  # 32 KiB each
kept = blocks[-1::-50]
del blocks
before = held()
give_back()
print(round(before - held()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it changes is glibc's")
@pytest.mark.long
def test_what_lies_between_goes_back():
    held = SCRIPT[SCRIPT.index("def held") : SCRIPT.index("with given_back")]
    script = BETWEEN.replace("HELD", f"from pathlib import Path\n{held}")
    freed = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert freed > 40, "of some 60 MiB"

"""What was freed goes back to the system."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from pathlib import Path
from lrp.heap import given_back

def held():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")).split()[1]) / 1024

def grown():
    before = held()
    torch.empty(25 * 2**20, dtype=torch.uint8).fill_(1)  # freed at once: from now on glibc keeps blocks of up to this size
    blocks = [torch.ones(2**19) for _ in range(60)]  # 2 MiB each
    del blocks[:-1]  # the last one lies above the others
    return held() - before

usual = grown()
with given_back():
    inside = grown()
print(round(usual), round(inside))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it changes is glibc's")
def test_freed_blocks_go_back():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    usual, inside = map(int, done.stdout.split())
    assert inside <= 6 and usual > 60, (usual, inside)  # MiB

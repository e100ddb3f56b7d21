"""A measurement in a process of its own, so that what ran before does not count in its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


class Stopped(SystemExit):
    """The process came to no row; its message is what it said. Where nobody catches it, the script ends with that."""


def measured(script: str, *words: object) -> dict[str, Any]:
    """Run a script with these words; its last line is the row, in JSON.

    Raises:
        Stopped: It failed, or said nothing.
    """
    done = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise Stopped(done.stderr.strip() or f"{script} ended with {done.returncode} and printed nothing")
    return json.loads(lines[-1])

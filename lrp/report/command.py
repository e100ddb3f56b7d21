"""The command line of the report: ``lrp report FOLDER... [--out report.html]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lrp.errors import InputError
from lrp.report.page import REPORT, write_report


def main(words: Sequence[str] | None = None, prog: str = "python -m lrp.report.command") -> None:
    """Write the report of the folders on the command line.

    Raises:
        InputError: Never: it becomes the SystemExit.
        SystemExit: With one sentence, for what is no folder of runs.
    """
    parser = argparse.ArgumentParser(prog=prog, description="One HTML file of runs and sweeps, which opens without a network.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders and sweep folders")
    parser.add_argument("--out", type=Path, help="the file (report.html in the first folder)")
    chosen = parser.parse_args(words)
    for folder in chosen.folders:
        if not folder.is_dir():
            raise SystemExit(f"lrp: {folder}: {'it is a file, not a folder' if folder.exists() else 'no such folder'}")
    try:
        print(write_report(chosen.folders, chosen.out or chosen.folders[0] / REPORT))
    except InputError as error:
        raise SystemExit(f"lrp: {error}") from None
    except OSError as error:
        raise SystemExit(f"lrp: {error.filename or chosen.out}: {error.strerror}") from None

"""Run the notebooks and keep what they print and draw.

python notebooks/run.py [NAME...]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def executed(file: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run of all its cells, in a process of its own that imports this checkout and has one thread."""
    notebook = nbformat.read(file, 4)
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(notebook, timeout=3600, record_timing=False, resources={"metadata": {"path": str(HERE)}})
    quiet = "ignore:IProgress not found"  # tqdm without ipywidgets, which nothing here needs
    client.execute(env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": quiet})
    notebook.metadata["language_info"] = {"name": "python"}  # without the version, which would change from machine to machine
    return notebook


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of notebooks; all unless given")
    for name in parser.parse_args().names or sorted(file.stem for file in HERE.glob("*.ipynb")):
        print(name, flush=True)
        nbformat.write(executed(HERE / f"{name}.ipynb"), HERE / f"{name}.ipynb")

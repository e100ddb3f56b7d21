"""W&B without a network."""

import json
import os
import subprocess
import sys

import pandas as pd
from shell import command


def test_wandb_offline_run_reads_back(tmp_path, cache):
    """Without key, network or terminal: nothing prompts, and the run on disk holds settings, rows, ranks and the table."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    words = [
        "-m",
        "scorer=magnitude,relative_error",
        "tracker=wandb",
        "tracker.mode=online",
        "sparsity.grid=[0,0.5]",
        "hydra.sweep.dir=sweep",
    ]
    done = subprocess.run(
        command(cache, *words), cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "there is no W&B key" in done.stderr
    for number, scorer in enumerate(("magnitude", "relative_error")):
        runs = list((tmp_path / "sweep" / str(number) / "wandb").glob("offline-run-*"))
        assert len(runs) == 1
        read = subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(runs[0])], capture_output=True, text=True, timeout=60
        )
        records = [json.loads(line) for line in read.stdout.splitlines()]
        text = json.dumps(records)
        run = next(record["run"] for record in records if "run" in record)
        config = run["config"]["update"]
        assert (config["scorer"], config["blocking"], config["calibration_scoring_images"]) == (scorer, "none", 4)
        assert '"group": "sweep"' in text or run.get("run_group") == "sweep"
        history = [record["history"] for record in records if "history" in record]
        accuracies = pd.read_csv(tmp_path / "sweep" / str(number) / "results.csv")["accuracy"]
        assert len(history) == 2
        for step, accuracy in zip(history, accuracies):
            assert f'"accuracy": {json.dumps(accuracy)}' in json.dumps(step) and "rank/classifier" in json.dumps(step)
        assert "results.csv" in text and "ranks" in text

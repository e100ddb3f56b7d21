"""docs/extending.md: every example is written to a folder as it stands and run; nothing of lrp is touched."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from shell import digits

from lrp.config.build import compose_job

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
FAST = [
    "model.training.epochs=1",
    "calibration.images=32",
    "calibration.scoring_images=4",
    "sparsity.grid=[0.5]",
    "threads=1",
    "evaluation.part=validation",
]
NARROW = {"model": []}  # the others prune the default network, at its narrowest


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_runs(section, tmp_path, monkeypatch):
    files = re.findall(r"^`(my/\S+)`\n\n```\w+\n(.*?)```", SECTIONS[section], re.MULTILINE | re.DOTALL)
    assert {Path(name).suffix for name, _ in files} == {".py", ".yaml"}
    for name, code in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (command,) = re.findall(r"^`python -m lrp.run (.*)`$", SECTIONS[section], re.MULTILINE)
    words = shlex.split(command)
    assert words[:2] == ["--config-dir", "my/conf"] and len(words) > 2
    group, option = words[2].split("=")
    narrow = NARROW.get(group, ["model.width=0.03125"])
    images = [] if group == "dataset" else digits(tmp_path)
    job = compose_job(*words[2:], *FAST, *narrow, *images, f"cache_dir={tmp_path}/cache", config_dir=tmp_path / "my" / "conf")
    (row,) = job.run(tmp_path / "run").to_dict("records")
    assert row["sparsity_params"] >= 0.5 and 0 <= row["accuracy"] <= 1
    columns = {"dataset": row["dataset"], "model": row["model"]}
    assert columns.get(group, row.get(group)) in (option, f"{Path(files[1][0]).stem}.Tiny") or option in str(row["model"])
    for word in words[3:]:
        assert word in str(row["options"]) or group in ("dataset", "model")  # those have columns, or a hash, of their own

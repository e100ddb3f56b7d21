"""The first look: what it runs, what it says and draws of that."""

import io
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest
from helpers import results_row, results_table

from lrp import tour
from lrp.figure.tour import conclusion

PAPER = [
    results_row(s, scorer=scorer, accuracy=a, accuracy_dense=0.98)
    for s, a in ((0.0, 0.98), (0.5, 0.7))
    for scorer in ("variance", "magnitude")
]
OURS = [results_row(s, method="output_aware", accuracy=a, accuracy_dense=0.98) for s, a in ((0.0, 0.98), (0.5, 0.97))]


def stand_in(code, text, stopped=None):
    """A process that has printed a text and ended."""
    ended = SimpleNamespace(returncode=code, stdout=io.StringIO(text), wait=lambda: code)
    ended.terminate = lambda: stopped.append(ended)
    return ended


def test_it_runs_draws_and_says(monkeypatch, tmp_path, capsys):
    ran = []

    def run(words, **kwargs):
        ran.append(words)
        name, folder = words[-1].split("=")[0], words[-1].split("'")[1]
        rows = PAPER if name == "hydra.sweep.dir" else OURS
        (place := tmp_path / folder / "0" if name == "hydra.sweep.dir" else tmp_path / folder).mkdir(parents=True, exist_ok=True)
        results_table(*rows).to_csv(place / "results.csv", index=False)
        return stand_in(0, "a line\n")

    monkeypatch.setattr(subprocess, "Popen", run)
    tour.main(["--out", str(tmp_path / "here"), "threads=2"], "lrp tour")
    out = capsys.readouterr().out
    assert [words[3] for words in ran] == ["-m", "method=output_aware"] and all(
        "threads=2" in words and "threads=1" not in words for words in ran
    )
    assert "\na line\n" in out and "[output_aware] a line\n" in out
    assert "With 50% of the parameters removed the best setting of the paper" in out and "reads 70.0%" in out and "had, 97.0%" in out
    assert (tmp_path / "here" / "tour.png").exists() and (tmp_path / "here" / "tour.pdf").exists()
    with pytest.raises(SystemExit, match="it is no empty folder"):
        tour.main(["--out", str(tmp_path / "here")], "lrp tour")
    (tmp_path / "stopped" / "paper").mkdir(parents=True)
    tour.main(["--out", str(tmp_path / "stopped")], "lrp tour")
    assert ["resume=true" in words for words in ran[2:]] == [True, False]
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="--out .*file/below: Not a directory; give a folder that can be made"):
        tour.main(["--out", str(tmp_path / "file" / "below")], "lrp tour")


def test_a_run_that_fails_is_the_end(monkeypatch, tmp_path, capsys):
    stopped = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **kwargs: stand_in(2, "lrp: no such thing\n", stopped))
    with pytest.raises(SystemExit) as end:
        tour.main(["--out", str(tmp_path / "here"), "fly=1"], "lrp tour")
    assert end.value.code == 2 and len(stopped) == 2
    told = capsys.readouterr()
    assert "to go on" not in told.err and told.out.count("no such thing") == 1
    monkeypatch.setattr(subprocess, "Popen", lambda words, **kwargs: stand_in(130, "", stopped))
    with pytest.raises(SystemExit):
        tour.main(["--out", str(tmp_path / "here")], "lrp tour")
    assert capsys.readouterr().err == f"to go on with the tour: lrp tour --out {tmp_path}/here\n"


def test_nothing_spoiled_is_said():
    table = pd.concat([results_table(*PAPER).assign(accuracy=0.98), results_table(*OURS)])
    assert conclusion(table) == "Some setting of the paper stays within 5 points of the dense network's 98.0% everywhere."

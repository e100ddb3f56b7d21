"""The command lrp: what it says of itself, and that it does what the modules do."""

import subprocess
import sys

import pandas as pd
import pytest
from helpers import results_row, results_table

import lrp
from lrp import __main__ as command
from lrp.config.explain import GROUPS, group, help_text, top
from lrp.figure.known import FIGURES


def run(monkeypatch, capsys, *words):
    """(exit code or sentence, what was printed)"""
    monkeypatch.setattr(sys, "argv", ["lrp", *words])
    code = None
    try:
        command.main()
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


def test_it_says_what_there_is(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version") == (None, f"lrp {lrp.__version__}\n")
    assert "lrp run" in run(monkeypatch, capsys)[1]
    said = run(monkeypatch, capsys, "fly")[0]
    assert said == "lrp: fly: give run, tour, figure, report, collect or dashboard; lrp --help says what they do"
    assert run(monkeypatch, capsys, "figure", "figure4")[0].endswith(f"choose one of {', '.join(FIGURES)}")
    assert run(monkeypatch, capsys, "dashboard", "mine")[0] == "lrp: mine: the W&B project is written ENTITY/PROJECT"


def test_a_figure_is_drawn(monkeypatch, capsys, tmp_path):
    file = tmp_path / "results.csv"
    results_table(results_row(0.0), results_row(0.5)).to_csv(file, index=False)
    code, out = run(monkeypatch, capsys, "figure", "figure3", str(file), "--out", str(tmp_path / "mine.png"))
    assert code is None and (tmp_path / "mine.png").exists() and (tmp_path / "mine.pdf").exists() and "mine.png" in out


@pytest.mark.slow
def test_every_option_is_explained():
    """In a sentence, which --help prints as well."""
    text, found = " ".join(help_text("lrp run").split()), [group(name) for name in GROUPS]
    assert all(option.comment for option in top())
    for each in found:
        assert all(each.choices.values()), each.name
        for option, choices in each.options:
            assert option.comment and choices, (each.name, option)
            assert f"{each.name}.{option.name}={' '.join(option.value.split())}" in text.replace("- ", "-"), option
    assert pd.Series([option.name for option in top()]).is_unique


def test_the_public_names_are_listed():
    assert {*lrp.__all__} <= {*dir(lrp)} and "importlib" not in dir(lrp)
    assert all(callable(getattr(lrp, name)) for name in lrp.__all__ if name != "__version__")


def test_whatever_goes_wrong_is_one_sentence(monkeypatch, capsys, tmp_path):
    """A damaged file below a folder; and somebody who stops a command ends it with the status of that signal."""
    results_table(results_row(0.5)).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "scores.parquet").write_bytes(b"damaged")
    code, out = run(monkeypatch, capsys, "report", str(tmp_path))
    assert code.startswith("lrp: ") and "parquet" in code.lower() and "\n" not in code and not (tmp_path / "report.html").exists()

    def stopped(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr("lrp.tour.main", stopped)
    assert run(monkeypatch, capsys, "tour") == (130, "")


@pytest.mark.slow
def test_a_reader_that_has_read_enough():
    """lrp run --help | head: no word about the pipe."""
    done = subprocess.run(f"{sys.executable} -m lrp run --help | head -1", shell=True, capture_output=True, text=True)
    assert done.stdout and not done.stderr

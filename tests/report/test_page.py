"""report.html: what stands in it, and what a browser makes of it."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
from helpers import results_row, results_table

from lrp.errors import InputError
from lrp.report import charts
from lrp.report.command import main
from lrp.report.page import write_report

GRID = [(b, s, seed, share) for b in ("none", "alds") for s in ("magnitude", "variance") for seed in (0, 1) for share in (0.0, 0.5)]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def sweep(tmp_path):
    """Two blockings, two scorers and two seeds, a job that failed, and a table of all, as a sweep leaves them."""
    folder, rows = tmp_path / "a sweep", []
    for job, (blocking, scorer, seed) in enumerate(dict.fromkeys(each[:3] for each in GRID)):
        own = [
            results_row(share, blocking=blocking, scorer=scorer, seed=seed, accuracy=0.98 - share * 0.2 - 0.01 * seed, accuracy_dense=0.98)
            for b, s, i, share in GRID
            if (b, s, i) == (blocking, scorer, seed)
        ]
        (place := folder / str(job)).mkdir(parents=True)
        results_table(*own).to_csv(place / "results.csv", index=False)
        kept = {"layer": ["a<b>", "c"], "block": 0, "shape": "4x4", "kept": [1, 2], "full": 4, "dense": False, "form": "matrix"}
        pd.DataFrame({"sparsity": [0.5, 0.5], **kept}).to_csv(place / "layers.csv", index=False)
        pd.DataFrame({"layer": ["a<b>"] * 3, "singular_value": [3.0, 2.0, 1.0]}).to_parquet(place / "scores.parquet")
        rows += own
    results_table(*rows).to_csv(folder / "results.csv", index=False)
    (folder / "8").mkdir()
    (folder / "8" / "lrp.log").write_text("2026 [ERROR] job 8 (scorer=x) failed: <b>bad</b> weights\n")
    (folder / "multirun.yaml").write_text("hydra:\n  overrides:\n    task: [scorer=a b, seed=1]\n    hydra: [hydra.mode=MULTIRUN]\n")
    return folder


def specs(text):
    """The charts in a page, by their ids."""
    found = re.findall(r'<script type="application/json" id="spec-([\w-]+)">(.*?)</script>', text, flags=re.DOTALL)
    return {name: json.loads(spec) for name, spec in found}


def table(text):
    """The table in a page."""
    return text[text.index("<table>") : text.index("</table>")]


def test_what_stands_in_it(sweep):
    text = write_report([sweep], sweep / "report.html").read_text()
    drawn = specs(text)
    assert [*drawn] == ["against-parameters", "against-multiply-accumulates", "ranks", "spectra", "seconds"] or "against-time" in drawn
    points = drawn["against-parameters"]["data"]["values"]
    assert len(points) == 8 and {point["seeds"] for point in points} == {2}  # the sweep's own table is not counted once more
    worst = next(point for point in points if point["sparsity"] == 0.5)
    assert worst["y"] == pytest.approx(0.875) and worst["low"] < worst["y"] < worst["high"]
    assert "8 runs, 16 rows; the dense network has an accuracy of 98.00 %." in text
    assert "lrp run -m &#39;scorer=a b&#39; seed=1</pre>" in text  # as a shell takes it
    assert "<strong>job 8</strong>: &lt;b&gt;bad&lt;/b&gt; weights" in text and "a<b>" not in text.split('type="module"')[0]
    assert table(text).count("<tr>") == 17 and 'data-value="0.875' not in text  # rows are not averaged
    assert len(text) < 2_000_000 and not re.search(r'(src|href)="(?!data:|#)', text.split('type="module"')[0])  # nothing is fetched


def test_the_command_that_is_known(sweep):
    assert "<pre" in (text := write_report([sweep / "0"], sweep / "one.html", "lrp run x=1").read_text()) and "lrp run x=1" in text


def test_a_study_has_its_own_figure(tmp_path):
    pd.DataFrame({"study": "figure1", "dataset": "mnist", "seed": [0, 1], "dim": 5, "accuracy": [0.5, 0.6]}).to_csv(
        tmp_path / "results.csv", index=False
    )
    (tmp_path / "figure1.png").write_bytes(b"not looked at")
    text = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in text and "figure1 on mnist" in text and table(text).count("<tr>") == 3 and not specs(text)


def test_what_is_no_run(tmp_path, capsys):
    for words, sentence in (([str(tmp_path / "none")], "no such folder"), ([str(tmp_path)], "results.csv")):
        with pytest.raises(SystemExit, match=sentence):
            main(words)
    with pytest.raises(InputError, match="results.csv"):
        write_report([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_long_spectra_are_thinned_and_seconds_summed():
    scores = pd.DataFrame({"layer": ["a"] * 500 + ["b"], "singular_value": [*range(500, 0, -1), 7.0]})
    values = charts.spectra(scores)["data"]["values"]
    assert len(values) == charts.POINTS + 1 and values[0]["value"] == 1 and values[-2]["component"] == 500 and values[-1]["value"] == 1
    table = pd.DataFrame({"folder": ["x", "x"], "seconds_score": [2.0, 2.0], "seconds_select": [1.0, 3.0], "seconds_recover": [None, None]})
    bars = charts.stages(table, {"x": "job"})["data"]["values"]
    assert [(bar["stage"], bar["seconds"]) for bar in bars] == [("score", 2.0), ("select", 2.0)]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_in_a_browser(sweep):
    """Every chart is drawn, nothing is said on the console, and a heading sorts."""
    page = write_report([sweep], sweep / "report.html")
    sorting = "<script type='module'>document.querySelectorAll('th button')[2].click()</script>"
    head, tail = page.read_text().rsplit("</body>", 1)
    page.write_text(head + sorting + "</body>" + tail)
    words = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom",
        f"--user-data-dir={sweep}/profile",
    ]  # fmt: skip
    done = subprocess.run([BROWSER, *words, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.stdout.count('class="marks"') == len(specs(page.read_text())) and "CONSOLE" not in done.stderr
    assert 'aria-sort="ascending"' in done.stdout

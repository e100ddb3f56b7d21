"""A folder of one's own is held to the contracts: what fulfils them passes, what does not is told the rule."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCORER = """
from dataclasses import dataclass
from typing import ClassVar

from lrp.scorer.magnitude import Magnitude


@dataclass(frozen=True)
class Shifted(Magnitude):
    name: ClassVar[str] = "shifted"
    by: float = {by}

    def __call__(self, *given):
        return [score + self.by for score in super().__call__(*given)]
"""


@pytest.mark.slow
@pytest.mark.parametrize("by, said", [(1.0, None), (-1e6, "scorer=shifted, layer stem: no score is negative")])
@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_scorer_of_ones_own(by, said, how, tmp_path):
    (tmp_path / "conf" / "scorer").mkdir(parents=True)
    (tmp_path / "conf" / "scorer" / "shifted.yaml").write_text(f"_target_: shifted.Shifted\nby: {by}\n")
    (tmp_path / "shifted.py").write_text(SCORER.format(by=by))
    here = Path(__file__).parent
    words = [str(here / "test_scorer.py"), str(here / "test_options.py"), "-k", "shifted", "-p", "no:cacheprovider", "--color=no"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "LRP_CONF"))}
    if how == "option":
        words += ["--conf", str(tmp_path / "conf")]
    else:
        environment["LRP_CONF"] = str(tmp_path / "conf")
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=here.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == (0 if said is None else 1), done.stdout + done.stderr
    assert said is None or said in done.stdout

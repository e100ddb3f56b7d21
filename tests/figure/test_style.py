"""What the figures share."""

import importlib
import sys

import matplotlib
import pytest

from lrp.figure import style


@pytest.mark.parametrize("notebook", [True, False])
def test_pictures_of_a_notebook_are_left_alone(notebook, monkeypatch):
    """lrp draws into files; in a notebook the cells' own pictures are still shown."""
    chosen = []
    monkeypatch.setattr(matplotlib, "use", chosen.append)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", matplotlib)
    importlib.reload(style)
    assert chosen == ([] if notebook else ["Agg"])

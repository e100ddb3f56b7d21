"""A run in a few numbers, for tables of runs and for sweeps that look for the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

AT = (50, 80, 90, 95)  # percent of the parameters removed
_READ = ["sparsity", "sparsity_params", "accuracy", "accuracy_dense"]


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """The numbers of a pruning's rows; none of a table of another kind, or without rows.

    * ``accuracy_at_50`` and so on: the accuracy where this percentage of the parameters was asked to be removed; between two rows it is
      interpolated linearly, beyond the last there is none. The dense network stands at 0.
    * ``accuracy_area``: the area under the accuracy over the sparsity that was reached (trapezoids, from the dense network at 0 to the
      last row), divided by its width, which is ``accuracy_area_to``: the mean accuracy up to there. Runs on one grid compare.
    * ``accuracy_dense``, ``rows``, and ``seconds_<stage>``: the mean over the rows.
    """
    if not len(rows) or not {*_READ} <= {*rows} or rows["sparsity"].duplicated().any():
        return {}
    dense = float(rows["accuracy_dense"].iloc[0])
    found = {"rows": float(len(rows)), "accuracy_dense": dense}
    x, y = _curve(rows["sparsity"], rows["accuracy"], dense)
    found |= {f"accuracy_at_{at}": float(np.interp(at / 100, x, y)) for at in AT if at / 100 <= x[-1]}
    x, y = _curve(rows["sparsity_params"], rows["accuracy"], dense)
    if x[-1] > 0:
        found |= {"accuracy_area": float(np.trapezoid(y, x) / x[-1]), "accuracy_area_to": float(x[-1])}
    for name in rows:
        if name.startswith("seconds_") and rows[name].notna().any():
            found[name] = float(rows[name].astype(float).mean())
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _curve(sparsity: pd.Series, accuracy: pd.Series, dense: float) -> tuple[Sequence[float], Sequence[float]]:
    """A line in the order of its sparsities, begun by the dense network at 0, unless a row stands there."""
    points = sorted(zip(sparsity.astype(float), accuracy.astype(float)))
    if points[0][0] > 0:
        points = [(0.0, dense), *points]
    return [x for x, _ in points], [y for _, y in points]

"""The figure of growth."""

import pandas as pd
import pytest

from lrp.figure.growth import draw_growth, growth


def rows(network, sizes, peak, seconds, examples=64):
    return [
        {"network": network, "size": n, "examples": examples, "parameters": 3 * n**2, "peak_gib": peak(n), "seconds": seconds(n)}
        for n in sizes
    ]


def test_exponents_are_those_of_the_powers_that_made_the_rows(tmp_path):
    """Of each thing that grows, with what is held; one row alone has no exponent, other networks have none either."""
    table = pd.DataFrame([
        *rows("chain", (100, 200, 400), lambda n: 0.01 * n**2, lambda n: 1e-6 * n**3),
        *rows("chain", (200,), lambda n: 0.02 * n**2, lambda n: 4e-6 * n**3, examples=1024),
        *rows("chain_layers", (64, 4, 16), lambda n: 2.0, lambda n: 3.0 * n),
        *rows("chain_outputs", (10,), lambda n: 1.0, lambda n: 1.0),
        *rows("gpt2", (64, 128), lambda n: 1.0, lambda n: 1.0),
    ])  # fmt: skip
    found = growth(table).set_index(["with", "held"])
    assert list(found.index) == [("parameters", "64 examples"), ("layers", "64 examples"), ("examples", "200 features")]
    peaks, seconds = found["peak_gib"].tolist(), found["seconds"].tolist()
    assert peaks == pytest.approx([1, 0, 0.25]) and seconds == pytest.approx([1.5, 1, 0.5])
    assert found.loc[("layers", "64 examples"), ["from", "to", "rows"]].tolist() == [4, 64, 3]
    text, paths = draw_growth(table, None, tmp_path / "growth")
    assert "layers" in text and all(path.exists() for path in paths)

"""Names with and without wrappers."""

import pytest

from lrp.model.names import readings, unwrapped, without_wrappers


@pytest.mark.parametrize("name, inner", [
    ("module.0.weight", "0.weight"), ("_orig_mod.module.0.weight", "0.weight"), ("features._orig_mod.0.weight", "features.0.weight"),
    ("0.weight", "0.weight"), ("modules.0", "modules.0"), ("module", ""), ("", ""),
])  # fmt: skip
def test_wrappers_stand_anywhere(name, inner):
    assert without_wrappers(name) == inner


def test_readings():
    names = ["_orig_mod.module.net.a.w", "_orig_mod.module.net.b.w"]
    assert [(left_off, sorted(short)) for left_off, short in readings(names)] == [
        ("", names),
        ("_orig_mod.", ["module.net.a.w", "module.net.b.w"]),
        ("_orig_mod.module.", ["net.a.w", "net.b.w"]),
        ("_orig_mod.module.net.", ["a.w", "b.w"]),
        ("module. and _orig_mod.", ["net.a.w", "net.b.w"]),
        ("module. and _orig_mod. and net.", ["a.w", "b.w"]),
    ]
    assert all(short[name] == whole for _, short in readings(names) for name, whole in short.items() if whole.endswith(name))


def test_two_names_never_become_one():
    assert [left_off for left_off, _ in unwrapped(["a.w", "module.a.w"])] == [""]
    assert [left_off for left_off, _ in unwrapped(["module"])] == [""]

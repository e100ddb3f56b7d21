"""What the options of every group share: a file, a class, a name; made from Hydra and from Python they are the same."""

import dataclasses
from pathlib import Path

import pytest
from contract.adapt import GROUPS, from_hydra, from_python, options, target

from lrp.config.parts import make
from lrp.errors import InputError

EVERY = [(group, name) for group in GROUPS for name in sorted(options(group))]


def plain(value):
    """For comparison: dataclasses as their fields, lists as tuples."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)) or type(value).__name__ == "ListConfig":
        return tuple(plain(each) for each in value)
    return value


def test_every_group_has_a_contract():
    written = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")}
    assert set(GROUPS) <= written, f"tests/contract has a file for each group, but none for {', '.join(set(GROUPS) - written)}"


@pytest.mark.slow
@pytest.mark.parametrize("group, name", EVERY)
def test_hydra_and_python_make_the_same(group, name):
    made = from_hydra(group, name)
    assert plain(made) == plain(from_python(group, name)), f"{group}={name} is the same on the command line and in Python"


@pytest.mark.slow
@pytest.mark.parametrize("group, name", EVERY)
def test_a_file_says_what_the_class_says(group, name):
    """An option that is a class of its own has the class's defaults, wherever it is made."""
    kind, alone = target(group, name)
    if not alone or group in ("model", "study") or not isinstance(kind, type):
        pytest.skip("it is a preset, or a recipe with values of its own")
    required = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    made = from_hydra(group, name)
    given = {field: getattr(made, field) for field in required}
    assert plain(kind(**given)) == plain(made), f"{group}={name}: {kind.__name__} made in Python has the defaults of the command line"


@pytest.mark.slow
@pytest.mark.parametrize("group, name", EVERY)
def test_an_option_knows_its_name(group, name):
    """Tables and lines of figures are named by it."""
    if group == "study":
        pytest.skip("a study is named by its figure")
    assert from_hydra(group, name).name == name, f"{group}={name}: the attribute name is that of its file"


@pytest.mark.parametrize("group", GROUPS)
def test_a_name_that_there_is_not_is_a_sentence_with_those_that_there_are(group):
    with pytest.raises(InputError, match=f"^{group}=xyzzy") as error:
        make(group, "xyzzy")
    sentence = str(error.value)
    assert "\n" not in sentence and all(name in sentence for name in options(group)), f"{group}: a wrong name is told the right ones"

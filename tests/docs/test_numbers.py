"""What was found stands on the pages of results in tables and sentences that scripts write from CSV files: no number is typed by hand."""

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs/results").glob("*.md"))
WRITTEN = re.compile(r"<!-- (table|text): \w+ -->.*?<!-- end -->", re.DOTALL)
BLOCK = re.compile(r"```.*?```|(?<=\n\n)(?: {4}[^\n]*(?:\n|$)|\n)+", re.DOTALL)
CODE = re.compile(r"`[^`]*`|\]\([^)]*\)")  # or where a link leads
NUMBER = re.compile(r"\d+\.\d+|\d+ ?%")
SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z*$])|\n\n|\n(?=[*|])")
SOURCE = re.compile(
    r"\([^)]*\b(?:19|20)\d\d\)|[Tt]he paper (?:reports|says|prints)|`python [^`]*`"
)  # a publication, or the command that prints it
# what was set, not found: each stands on its page
SETTINGS = {
    "at_initialisation": ("Nesterov momentum 0.9", "a one-cycle learning rate with its peak at 0.1"),
    "figure1": ("SGD 0.1 (1 to 5)",),
    "language_models": ("A decoder of 0.9 million parameters",),
    "networks": ("A decoder of 0.17 million parameters",),
    "pretrained": ("1.4 million parameters", "12.9 million"),
    "simplicity_bias": ("SGD 0.01 with momentum 0.9", "A learning rate of 0.05"),
}


def typed(text: str, settings: tuple[str, ...] = ()) -> list[str]:
    """The sentences of a page with a decimal number or a percentage that no script wrote and that name no source."""
    for setting in settings:
        text = text.replace(setting, "")
    sentences = SENTENCE.split(BLOCK.sub("\n\n", WRITTEN.sub("\n\n", text)))
    return [each for each in sentences if not SOURCE.search(each) and NUMBER.search(CODE.sub(" ", each))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_number_is_typed_by_hand(page):
    text, settings = page.read_text(encoding="utf-8"), SETTINGS.get(page.stem, ())
    assert not [each for each in settings if each not in text]
    assert not typed(text, settings), "let docs/tables.py write it, drop it, or put the command that prints it beside it"


def test_typed_numbers_are_found():
    assert typed("It has 91.2 of them.") and typed("It keeps\n80 % there.") and typed("| a | 3.4 |\n|---|---|\n")
    assert not typed("With 3 seeds, `lr=0.1` ([x](a-1.2.md)).\n\n    run 0.5\n\n<!-- text: said -->\n91.2\n<!-- end -->\n")
    assert not typed("It has 54.7 % (Wang et al., ICLR 2020).") and not typed("`python a.py` prints 0.9.")

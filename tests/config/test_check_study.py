"""One sentence for each command line of a study that cannot run."""

import pytest
from shell import check_refused

# Each composes configurations, a quarter of a second and more.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("composed_once")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["study=dim_rank", "blocking=square"], "blocking=square: study=dim_rank has no such option; choose among cache_dir, dataset"),
        (["study=dim_rank", "study.ranks=[0]"], "study.ranks=0: must be an integer of at least 1"),
        (
            ["study=rank_switch", "study.train_ranks=[300]"],
            "study.train_ranks=300: must be -1 (one dense matrix) or an integer from 1 to 256",
        ),
        (["study=rank_switch", "study.switch_epochs=[50]"], "study.switch_epochs=50: must be less than study.epochs=50"),
        (["study=rank_switch", "study.grow=fast"], "study.grow=fast: choose one of orthogonal, svd"),
        (["study=simplicity_bias", "study.networks=[rnn]"], "study.networks=rnn: choose among linear, mlp, conv"),
        (["study=simplicity_bias", "study.scorer=best"], "scorer=best: no such option"),
        (["study=dim_rank", "study.dmis=[4]"], "study.dmis=[4]"),
    ],
)
def test_one_sentence_for_bad_input(words, sentence, capsys):
    check_refused(words, sentence, capsys)

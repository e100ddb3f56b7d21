"""One sentence for each command line of a study that cannot run."""

import pytest
from shell import check_refused


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["study=dim_rank", "blocking=square"], "blocking=square: study=dim_rank "),
        (["study=dim_rank", "study.ranks=[0]"], "study.ranks=0: an integer of at least 1"),
        (["study=rank_switch", "study.train_ranks=[300]"], "study.train_ranks=300: -1 (one dense matrix) or an integer from 1 to 256"),
        (["study=rank_switch", "study.switch_epochs=[50]"], "study.switch_epochs=50: a switch is after an epoch before the last"),
        (["study=rank_switch", "study.grow=fast"], "study.grow=fast: orthogonal or svd"),
        (["study=simplicity_bias", "study.networks=[rnn]"], "study.networks=rnn: linear, mlp, conv are allowed"),
        (["study=simplicity_bias", "study.scorer=best"], "scorer=best: "),
        (["study=dim_rank", "study.dmis=[4]"], "study.dmis=[4]"),
    ],
)
def test_one_sentence_for_bad_input(words, sentence, capsys):
    check_refused(words, sentence, capsys)

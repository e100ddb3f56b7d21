"""What a row says of the options."""

import pytest

from lrp.config.build import compose_job


@pytest.mark.slow
def test_options_say_what_is_not_default():
    job = compose_job(
        "method=output_aware",
        "scorer=noise_to_signal",
        "scorer.depth=0.5",
        "estimator.output_fn=torch.nn.functional.relu",
        "recovery=finetune",
        "recovery.lr=1",
    )
    again = compose_job("scorer=random", "scorer.seed=1", "rounds.keep_factor=0.8", "recovery=batchnorm", "recovery.lr=1")
    assert again.options == "scorer.seed=1 rounds.keep_factor=0.8"
    forms = "forms=['matrix','tucker2','spatial','pivoted','tucker2_pivoted']"
    assert job.options == f"scorer.depth=0.5 estimator.output_fn=torch.nn.functional.relu {forms} recovery.lr=1"
    assert compose_job("method=output_aware", "forms=matrix").options is None and compose_job("forms=matrix").options is None
    job = compose_job(
        "blocking=alds", "blocking.k=2", "selection.per_parameter=true", "estimator.memory_limit=0.5", "seed=3", "exclude=[a]"
    )
    assert job.options == "blocking.k=2 selection.per_parameter=True"


@pytest.mark.slow
def test_files_of_sparsities_with_the_same_six_digits_are_two():
    job = compose_job("sparsity.grid=[0.5,0.5000001,0.3333333333]")
    assert [job.label(sparsity) for sparsity in job.sparsities] == ["0.5", "0.5000001", "0.333333"]

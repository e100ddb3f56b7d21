"""The columns of results.csv."""

from __future__ import annotations

from lrp.cost.timing import LATENCY_COLUMNS

COMMON = ("study", "dataset", "seed")
COLUMNS = (
    "model checkpoint_sha256 dataset method blocking decomposition scorer estimator scoring_images selection per_parameter "
    "round_to break_even exclude budget compensation rounds recovery options seed sparsity sparsity_params sparsity_macs params params_dense "
    "params_total params_total_dense macs macs_dense part accuracy accuracy_before_recovery accuracy_dense loss perturbation_additive "
    "perturbation_joint perturbation_true blocks components components_kept "
    f"{' '.join(LATENCY_COLUMNS)} seconds_statistics seconds_decompose seconds_score seconds_select seconds_compensate seconds_recover blocking_k calibration_images calibration_seed"
).split()
# What a row was measured to be; all other columns say what was asked for.
MEASURED = [name for name in COLUMNS[COLUMNS.index("sparsity_params") : COLUMNS.index("seconds_recover") + 1] if name != "part"]
# Columns that tables of earlier versions lack, with what they are when those are read.
ADDED = {
    **dict.fromkeys(("perturbation_additive", "perturbation_joint", "perturbation_true", "exclude", "options", *LATENCY_COLUMNS)),
    **dict.fromkeys(("seconds_statistics", "seconds_compensate")), "round_to": 1, "break_even": "params", "part": "test",
}  # fmt: skip

# Of layers.csv.
LAYER_COLUMNS = "sparsity layer block shape kept full dense".split()

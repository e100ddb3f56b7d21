"""Which forms a method may store layers in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lrp.cost.costs import TIME
from lrp.decomposition.base import form_of
from lrp.errors import InputError
from lrp.form.known import check_forms
from lrp.form.matrix import Matrix

log = logging.getLogger(__name__)

AUTO = "auto"
BEST = ("matrix", "tucker2", "spatial", "pivoted", "tucker2_pivoted")  # on validation images: docs/results/forms.md


def usable_forms(method: Any) -> Sequence[str]:
    """The forms of a method, by their names: those that it asks for, or with ``auto`` the best ones that its parts know of.

    Raises:
        InputError: For names of no form, and for parts that do not know the forms or the budget of time that were asked for.
    """
    if method.budget == TIME and (reason := _refused(method)):
        name, value, allowed = reason
        raise InputError("budget", method.budget, f"{name}={value} knows params and macs alone; choose one of these, or set {allowed}")
    if method.forms == AUTO:
        return BEST if _refused(method) is None else (Matrix.name,)
    forms = check_forms(method.forms)
    if forms != (Matrix.name,) and (reason := _refused(method)):
        name, value, allowed = reason
        raise InputError(name, value, f"it knows the form matrix alone; set forms=matrix with it, or {allowed}")
    return forms


def _refused(method: Any) -> tuple[str, Any, str] | None:
    """The part of a method that knows no other form than a matrix: its name, its value, and what would do."""
    if form_of(method.decomposition) != Matrix.name:
        return "decomposition", method.decomposition.name, "decomposition=svd"
    if not hasattr(method.scorer, "loss"):
        return "scorer", method.scorer.name, "scorer=noise_to_signal or scorer=perturbation"
    if method.selection.name != "lagrangian":
        return "selection", method.selection.name, "selection=lagrangian"
    if method.keep_factor is not None:
        return "rounds.keep_factor", method.keep_factor, "rounds.keep_factor=null"
    return None


def forms_of(method: Any) -> Sequence[str]:
    """As ``usable_forms``, which was called when the method was made; says in the log where ``auto`` is less than the best."""
    if method.forms == AUTO and (reason := _refused(method)):
        log.info("forms=auto: matrix alone, since %s=%s knows no other", *reason[:2])
    return usable_forms(method)

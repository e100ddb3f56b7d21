"""The forms by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrp.errors import InputError
from lrp.form.base import Form, Refitted
from lrp.form.clusters import Clusters
from lrp.form.masked import MaskedForm
from lrp.form.matrix import Matrix
from lrp.form.nested import NestedForm
from lrp.form.pivoted import PivotedForm
from lrp.form.spatial import SpatialForm
from lrp.form.spatial_pivoted import SpatialPivotedForm
from lrp.form.tucker2 import Tucker2Form
from lrp.form.tucker2_pivoted import Tucker2PivotedForm
from lrp.layer.compressed import Compressed

ALL: Sequence[Form] = (
    Matrix(), Tucker2Form(), SpatialForm(), NestedForm(), PivotedForm(), Tucker2PivotedForm(), SpatialPivotedForm(),
)  # fmt: skip
FORMS: dict[str, Form] = {form.name: form for form in ALL}
BUILT: dict[str, Refitted] = {**FORMS, MaskedForm.name: MaskedForm(), Clusters.name: Clusters()}  # and those which nobody chooses


def form_of(module: Compressed) -> Refitted:
    """The form of a compressed layer."""
    return BUILT[module.family or module.form]


def check_forms(forms: Any) -> Sequence[str]:
    """A list of names of forms, each once.

    Raises:
        InputError: For anything else.
    """
    names = [forms] if isinstance(forms, str) else forms
    known = isinstance(names, list | tuple) and all(isinstance(name, str) and name in FORMS for name in names)
    if not known or not names or len({*names}) < len(names):
        given = forms if isinstance(forms, str | list | tuple) else type(forms).__name__
        raise InputError("forms", given, f"give auto, or a list of {', '.join(FORMS)}, each at most once")
    return tuple(names)

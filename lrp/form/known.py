"""The forms by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrp.errors import InputError
from lrp.form.base import Form
from lrp.form.matrix import Matrix
from lrp.form.nested import NestedForm
from lrp.form.pivoted import PivotedForm
from lrp.form.spatial import SpatialForm
from lrp.form.tucker2 import Tucker2Form
from lrp.form.tucker2_pivoted import Tucker2PivotedForm
from lrp.layer.compressed import Compressed

ALL: Sequence[Form] = (Matrix(), Tucker2Form(), SpatialForm(), NestedForm(), PivotedForm(), Tucker2PivotedForm())
FORMS: dict[str, Form] = {form.name: form for form in ALL}


def form_of(module: Compressed) -> Form:
    """The form of a compressed layer."""
    return FORMS[module.form]


def check_forms(forms: Any) -> Sequence[str]:
    """A list of names of forms, each once.

    Raises:
        InputError: For anything else.
    """
    forms = [forms] if isinstance(forms, str) else forms
    if not isinstance(forms, list | tuple) or not forms or any(name not in FORMS for name in forms) or len({*forms}) < len(forms):
        raise InputError("forms", forms, f"give a list of {', '.join(FORMS)}, each at most once, or auto")
    return tuple(forms)

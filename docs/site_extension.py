"""What the site needs besides Sphinx: links to folders, and docstrings as they are written here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class Folders(SphinxTransform):
    """A link to a folder keeps its words alone: MyST links pages, and copies files, but a site has no list of a folder's files."""

    default_priority = 5

    def apply(self, **options: Any) -> None:
        place = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            if (place / link.get("reftarget", "")).is_dir():
                link.replace_self(nodes.inline("", "", *link.children))


def bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """In docstrings |x| is an absolute value, which reStructuredText takes for a substitution."""
    lines[:] = [re.sub(r"(``.*?``)|\|", lambda match: match[1] or r"\|", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Folders)
    app.connect("autodoc-process-docstring", bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

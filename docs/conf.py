"""The site: every page below docs/ and notebooks/, and what they link to.

    sphinx-build -W --keep-going -b html -c docs . docs/_build/html    # make docs

The source folder is the repository's root, so that a link which works between the files works between the pages. Nothing is downloaded
and no notebook is run.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
os.environ.setdefault("WANDB_MODE", "disabled")  # importing a tracker for its docstrings reports nothing

project = "lrp"
author = "the authors of lrp"
project_copyright = "MIT license"
try:
    release = metadata.version("lrp")
except metadata.PackageNotFoundError:
    release = ""

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_extension"]
default_role = "literal"  # `k` in a docstring is code
root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "experiments/README.md", "experiments/checkpoints/README.md", "*.md"]
exclude_patterns = ["README.md", ".*", "build", "conf", "docs/_build", "lrp", "outputs", "tests", "**/.ipynb_checkpoints"]

myst_heading_anchors = 4  # named as code hosts name them
nb_execution_mode = "off"  # outputs are those that are committed; tests/test_notebooks.py runs the notebooks
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]  # a page may begin at any level; an unknown output has its text

napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of torch and pandas, whose pages are elsewhere

html_theme = "furo"
html_title = f"lrp {release}".strip()
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}  # the folder itself opens on the first page
templates_path = ["_templates"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "tango"
pygments_dark_style = "monokai"

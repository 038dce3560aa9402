"""Settings of the documentation site, which scripts/docs.sh builds out of the Markdown files of
this folder and the docstrings.

Sphinx with MyST and Furo rather than MkDocs with Material: MkDocs' last release is of August 2024,
and Material for it is only maintained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "CDC for prompt learning"
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # names of headings to link to, as GitHub makes them

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = (
    True  # "Attributes:" describes what a dataclass declares, and doesn't declare it again
)

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False

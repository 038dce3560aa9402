"""Settings of the documentation site, which scripts/docs.sh builds out of the Markdown files of
this folder, the docstrings, and the pages of the trainers that tools/trainer_pages.py makes.

Sphinx with MyST and Furo rather than MkDocs with Material: MkDocs' last release is of August 2024,
and Material for it is only maintained.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

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
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(_: object) -> None:
    """Sphinx calls it before it looks for pages."""
    from tools.trainer_pages import write_pages

    write_pages(DOCS / "trainers")

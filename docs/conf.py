"""Settings of the documentation site, which scripts/docs.sh builds of the Markdown files of this
folder and of the code: autodoc fills the pages of ``api/`` with docstrings, trainer_pages.py writes
the pages of ``trainers/``, which git ignores.

Sphinx with MyST and Furo rather than MkDocs with Material: MkDocs' last release is of August 2024,
and Material for it is only maintained.
"""

from pathlib import Path

from docs.trainer_pages import MODEL_CARD, write_pages

project = "CDC for prompt learning"
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # else a dataclass's fields stand twice
default_role = "code"  # `x` in a docstring, as in Markdown
myst_heading_anchors = 4  # names of headings to link to, as GitHub makes them

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# the site's menu, caption → pages; no page has it, so that they read well as plain Markdown
MENU = {
    "Use it": "in_ten_lines tutorials/first_run tutorials/own_images tutorials/rounds tutorials/bioclip choosing multi_label boxes serving "
    "faq tutorials/report backbones uncertainty tutorials/cluster",
    "Research": "protocols reproduce benchmark ablation method factors faithfulness faithfulness/prompts "
    "faithfulness/layers tutorials/own_trainer tutorials/plug_in",
    "Work on it": "reliability measures performance log",
    "Reference": "trainers/index trainers/* api/classifier api/trainer api/evidence api/prompting "
    "api/data api/results",
}


def complete(app, page, source):
    """Puts the menu at the end of the first page, as Sphinx reads it, and leads to the site's copy of
    the model card."""
    source[0] = source[0].replace(f"../{MODEL_CARD}", "trainers/tiny_clip.md")
    if page == "index":
        for caption, pages in MENU.items():
            lines = [
                "```{toctree}",
                f":caption: {caption}",
                ":hidden:",
                ":glob:",
                "",
                *pages.split(),
            ]
            source[0] += "\n".join(["", *lines, "```", ""])


def setup(app):
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "trainers"))
    app.connect("source-read", complete)

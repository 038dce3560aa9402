"""Settings of the documentation site, which scripts/docs.sh builds out of the Markdown files of
this folder; tools/reference.py has written those that are made of the code.

Sphinx with MyST and Furo rather than MkDocs with Material: MkDocs' last release is of August 2024,
and Material for it is only maintained.
"""

project = "CDC for prompt learning"
language = "en"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # names of headings to link to, as GitHub makes them

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

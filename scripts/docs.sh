#!/usr/bin/env bash
# Builds the documentation site, build/docs/index.html; a warning (a link to nowhere, a page in no menu) is an error.
#   bash scripts/docs.sh [FOLDER]     builds FOLDER/docs instead
source "$(dirname "$0")/setup.sh"
set_up demo docs export
python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet --doctree-dir "${1:-build}/doctrees" docs "${1:-build}/docs"

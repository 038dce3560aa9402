#!/usr/bin/env bash
# Checks the code without running it, in an environment that is active: layout and style (ruff),
# types (mypy), who imports whom (lint-imports), whose settings are in pyproject.toml, what is
# squeezed into a line (tools/squeezes.py), and how much docs/ says and how it reads (tools/words.py).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0
for check in "python -m ruff format --no-cache --diff --quiet ." \
    "python -m ruff check --no-cache --output-format concise ." "python -m mypy" "lint-imports --no-cache --no-logo" \
    "python tools/squeezes.py" "python tools/words.py"; do
    said="$($check 2>&1)" || { failed=1; echo "$check"; echo "$said"; }
done
exit "$failed"

#!/usr/bin/env bash
# Sets up and checks the code without running it: layout and style (ruff), types (mypy), who imports whom
# (lint-imports). Their settings are in pyproject.toml.
source "$(dirname "$0")/setup.sh"
set_up demo docs export test
failed=0
for check in "python -m ruff format --no-cache --diff --quiet ." \
    "python -m ruff check --no-cache --output-format concise ." "python -m mypy" "lint-imports --no-cache --no-logo"; do
    said="$($check 2>&1)" || { failed=1; echo "$check"; echo "$said"; }
done
exit "$failed"

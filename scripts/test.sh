#!/usr/bin/env bash
# Sets up and runs the tests: bash scripts/test.sh [pytest's arguments]
source "$(dirname "$0")/setup.sh"
set_up
python -m pytest "$@"

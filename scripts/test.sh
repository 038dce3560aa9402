#!/usr/bin/env bash
# Sets up and runs the tests: bash scripts/test.sh [pytest's arguments]
source "$(dirname "$0")/setup.sh"
set_up
# one process a core, one thread a process: the models are too small to share
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 8 "$@"

#!/usr/bin/env bash
# Sets up and runs the tests: bash scripts/test.sh [pytest's arguments]
# Without arguments those that take six minutes on two cores; -m "" runs the long ones, too, as .ci/run does.
source "$(dirname "$0")/setup.sh"
set_up demo docs export test
# tests start hundreds of processes, each of which would compile our modules again
unset PYTHONDONTWRITEBYTECODE
# one process a core, one thread each, since the models are small; a file's tests share a process, which makes their fixtures once
OMP_NUM_THREADS=1 exec python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"

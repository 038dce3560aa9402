#!/usr/bin/env bash
# Sets up and runs the tests, and beside them scripts/check.sh: bash scripts/test.sh [pytest's arguments]
# Without arguments those that take eight to eleven minutes on two cores; -m "" runs the long ones, too, as .ci/run does.
source "$(dirname "$0")/setup.sh"
set_up demo docs export test
complaints="$(mktemp)"
bash scripts/check.sh > "$complaints" &
checks=$!
trap 'kill "$checks" 2> /dev/null || true; rm -f "$complaints"' EXIT
code=0
# one process a core, one thread each, since the models are small; a file's tests share a process, which makes their fixtures once
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@" || code=$?
if ! wait "$checks"; then
    cat "$complaints" >&2
    code=1
fi
exit "$code"

#!/usr/bin/env bash
# All trainers, all protocols on the embedded data: the tables of docs/benchmark.md. Hours on 2 CPU cores (docs/benchmark.md); what is done is
# skipped, so it can be stopped and started again.
#   SEEDS="1 2"  (default: 1 to 5 base-to-new and open, 1 to 3 else)  TRAINERS="CoOp CDC"  DATA=data  JOBS=2  (side by side; default: one a core)
source "$(dirname "$0")/setup.sh"
set_up demo
every=$(python -c "from trainers import METHODS; print(*METHODS)")
for protocol in base2new open xd dg fewshot; do
    seeds="1 2 3"
    case $protocol in base2new | open) seeds="1 2 3 4 5" ;; esac
    # shellcheck disable=SC2086  (lists)
    python run.py --protocol "$protocol" --dataset openmoji --trainer ${TRAINERS:-$every} --seeds ${SEEDS:-$seeds} \
        --root "${DATA:-data}" --jobs "${JOBS:-$(nproc)}"
done

#!/usr/bin/env bash
# All trainers, all protocols on the embedded data: the tables of docs/benchmark.md. Hours on 2 CPU cores (docs/benchmark.md); what is done is
# skipped, so it can be stopped and started again.
#   SEEDS="1 2 3"  TRAINERS="CoOp CDC"  DATA=data  OUTPUT=output    JOBS=2  (runs side by side; default: one a core)
source "$(dirname "$0")/setup.sh"
set_up
learning="CoOp CoCoOp KgCoOp ProGrad VPT IVLP MaPLe PromptSRC CDC"
for protocol in base2new xd dg fewshot; do
    case $protocol in xd | dg) folder=transfer ;; *) folder=$protocol ;; esac
    # shellcheck disable=SC2086  (lists)
    python run.py --protocol "$protocol" --dataset openmoji --trainer ${TRAINERS:-ZeroshotCLIP ZeroshotCLIP2 $learning} --seeds ${SEEDS:-1 2 3} \
        --root "${DATA:-data}" --output "${OUTPUT:-output}/$folder" --jobs "${JOBS:-$(nproc)}"
done

#!/usr/bin/env bash
# CDC and CoOp beside zero-shot CLIP, base-to-new on the embedded data set: trains, tests both halves, prints one table.
#   SEEDS="1 2 3" bash scripts/cdc/demo.sh     (default: seed 1)
#   TRAINERS="ZeroshotCLIP CDC"                 a part of the trainers
# For DATA, CFG, SHOTS and OUTPUT see scripts/base2new.sh.
source "$(dirname "$0")/../setup.sh"
source scripts/base2new.sh
set_up
for seed in ${SEEDS:-1}; do
    for trainer in ${TRAINERS:-ZeroshotCLIP CoOp CDC}; do
        base2new_train "$trainer" openmoji "$seed"
        base2new_test "$trainer" openmoji "$seed"
    done
done
python -m results.table "${OUTPUT:-output/base2new}"

#!/usr/bin/env bash
# CDC and CoOp beside zero-shot CLIP, base-to-new on the embedded data set: trains, tests both halves, prints one table.
#   SEEDS="1 2 3" bash scripts/cdc/demo.sh     (default: seed 1)
#   TRAINERS="ZeroshotCLIP CDC"                 other trainers
#   bash scripts/cdc/demo.sh OPTIM.MAX_EPOCH 5  pairs KEY VALUE over all config files
# For DATA, BACKBONE, CFG, SHOTS and OUTPUT see scripts/protocol.sh.
source "$(dirname "$0")/../setup.sh"
set_up demo
# shellcheck disable=SC2086  (SEEDS and TRAINERS are lists)
python run.py --protocol base2new --dataset openmoji --trainer ${TRAINERS:-ZeroshotCLIP CoOp CDC} --seeds ${SEEDS:-1} \
    --root "${DATA:-data}" ${BACKBONE:+--backbone "$BACKBONE"} ${CFG:+--config "$CFG"} ${SHOTS:+--shots $SHOTS} ${OUTPUT:+--output "$OUTPUT"} ${1:+--} "$@"

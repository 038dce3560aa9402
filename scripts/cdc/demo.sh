#!/usr/bin/env bash
# CDC and CoOp beside zero-shot CLIP, base-to-new on the embedded data set: trains, tests both halves, prints one table and
# what it shows, and writes a report. Four minutes on two cores.
#   SEEDS="1 2 3" bash scripts/cdc/demo.sh     (default: seed 1)
#   TRAINERS="ZeroshotCLIP CDC"                 other trainers
#   bash scripts/cdc/demo.sh OPTIM.MAX_EPOCH 5  pairs KEY VALUE over all config files
# For DATA, BACKBONE, CFG, SHOTS and OUTPUT (output/demo) see scripts/protocol.sh.
source "$(dirname "$0")/../setup.sh"
set_up demo
data="${DATA:-data}"
output="${OUTPUT:-output/demo}"
# shellcheck disable=SC2086  (SEEDS and TRAINERS are lists)
python run.py --protocol base2new --dataset openmoji --trainer ${TRAINERS:-ZeroshotCLIP CoOp CDC} --seeds ${SEEDS:-1} --root "$data" --output "$output" \
    ${BACKBONE:+--backbone "$BACKBONE"} ${CFG:+--config "$CFG"} ${SHOTS:+--shots $SHOTS} ${1:+--} "$@"
echo
echo "Percent right on new pictures of the classes trained on (base) and of classes never trained on (new), and their harmonic mean (H)."
python -m report "$output" --root "$data" --output "$output/report.html"
echo "The report, with pictures, mistakes, and how certain the answers were: $output/report.html"

#!/usr/bin/env bash
# Few-shot: trains on 1, 2, 4, 8 and 16 images of all classes and tests on them. Usage: bash scripts/fewshot_train.sh TRAINER DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/protocol.sh"
protocol fewshot train "$@"

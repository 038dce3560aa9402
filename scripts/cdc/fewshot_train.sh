#!/usr/bin/env bash
# CDC, few-shot: trains on 1, 2, 4, 8 and 16 images of all classes and tests on them. Usage: bash scripts/cdc/fewshot_train.sh DATASET SEED [KEY VALUE …]
exec bash "$(dirname "$0")/../fewshot_train.sh" CDC "$@"

#!/usr/bin/env bash
# IVLP, few-shot: trains on 1, 2, 4, 8 and 16 images of all classes and tests on them. Usage: bash scripts/ivlp/fewshot_train.sh DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol fewshot IVLP train "$@"

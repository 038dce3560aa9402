#!/usr/bin/env bash
# Base-to-new: trains on the base classes and tests on them. Usage: bash scripts/base2new_train.sh TRAINER DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/protocol.sh"
protocol base2new train "$@"

#!/usr/bin/env bash
# Base-to-new: tests on the new classes what base2new_train.sh trained. Usage: bash scripts/base2new_test.sh TRAINER DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/protocol.sh"
protocol base2new test "$@"

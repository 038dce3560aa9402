#!/usr/bin/env bash
# KgCoOp, base-to-new: tests on the new classes what base2new_train.sh trained. Usage: bash scripts/kgcoop/base2new_test.sh DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol base2new KgCoOp test "$@"

#!/usr/bin/env bash
# ProGrad, base-to-new: trains on the base classes and tests on them. Usage: bash scripts/prograd/base2new_train.sh DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol base2new ProGrad train "$@"

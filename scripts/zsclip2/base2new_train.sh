#!/usr/bin/env bash
# ZeroshotCLIP2, base-to-new: trains on the base classes and tests on them. Usage: bash scripts/zsclip2/base2new_train.sh DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol base2new ZeroshotCLIP2 train "$@"

#!/usr/bin/env bash
# Cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/xd_train.sh TRAINER SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/protocol.sh"
protocol xd train "$@"

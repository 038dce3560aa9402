#!/usr/bin/env bash
# Cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/xd_test.sh TRAINER SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/protocol.sh"
protocol xd test "$@"

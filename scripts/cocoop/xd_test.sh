#!/usr/bin/env bash
# CoCoOp, cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/cocoop/xd_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd CoCoOp test "$@"

#!/usr/bin/env bash
# CoOp, cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/coop/xd_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd CoOp test "$@"

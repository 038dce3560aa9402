#!/usr/bin/env bash
# ProGrad, cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/prograd/xd_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd ProGrad test "$@"

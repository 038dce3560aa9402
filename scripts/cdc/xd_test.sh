#!/usr/bin/env bash
# CDC, cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/cdc/xd_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd CDC test "$@"

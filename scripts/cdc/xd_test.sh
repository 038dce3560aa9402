#!/usr/bin/env bash
# CDC, cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/cdc/xd_test.sh SOURCE SEED [KEY VALUE …]
exec bash "$(dirname "$0")/../xd_test.sh" CDC "$@"

#!/usr/bin/env bash
# ZeroshotCLIP2, cross-data-set: tests on the other data sets what xd_train.sh trained on the source. Usage: bash scripts/zsclip2/xd_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd ZeroshotCLIP2 test "$@"

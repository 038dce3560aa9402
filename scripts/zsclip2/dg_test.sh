#!/usr/bin/env bash
# ZeroshotCLIP2, domain generalisation: tests on the source's variants what xd_train.sh trained. Usage: bash scripts/zsclip2/dg_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol dg ZeroshotCLIP2 test "$@"

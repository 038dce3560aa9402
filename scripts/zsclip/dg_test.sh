#!/usr/bin/env bash
# ZeroshotCLIP, domain generalisation: tests on the source's variants what xd_train.sh trained. Usage: bash scripts/zsclip/dg_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol dg ZeroshotCLIP test "$@"

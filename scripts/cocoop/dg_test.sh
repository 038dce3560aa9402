#!/usr/bin/env bash
# CoCoOp, domain generalisation: tests on the source's variants what xd_train.sh trained. Usage: bash scripts/cocoop/dg_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol dg CoCoOp test "$@"

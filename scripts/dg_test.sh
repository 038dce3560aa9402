#!/usr/bin/env bash
# Domain generalisation: tests on the source's variants what xd_train.sh trained. Usage: bash scripts/dg_test.sh TRAINER SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/protocol.sh"
protocol dg test "$@"

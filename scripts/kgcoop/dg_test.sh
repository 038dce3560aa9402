#!/usr/bin/env bash
# KgCoOp, domain generalisation: tests on the source's variants what xd_train.sh trained. Usage: bash scripts/kgcoop/dg_test.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol dg KgCoOp test "$@"

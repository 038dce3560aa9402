#!/usr/bin/env bash
# CDC, domain generalisation: tests on the source's variants what xd_train.sh trained. Usage: bash scripts/cdc/dg_test.sh SOURCE SEED [KEY VALUE …]
exec bash "$(dirname "$0")/../dg_test.sh" CDC "$@"

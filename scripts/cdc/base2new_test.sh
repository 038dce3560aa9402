#!/usr/bin/env bash
# CDC, base-to-new: tests on the new classes what base2new_train.sh trained. Usage: bash scripts/cdc/base2new_test.sh DATASET SEED [KEY VALUE …]
exec bash "$(dirname "$0")/../base2new_test.sh" CDC "$@"

#!/usr/bin/env bash
# CDC, base-to-new: trains on the base classes and tests on them. Usage: bash scripts/cdc/base2new_train.sh DATASET SEED [KEY VALUE …]
exec bash "$(dirname "$0")/../base2new_train.sh" CDC "$@"

#!/usr/bin/env bash
# CDC, base-to-new: tests on the new classes what base2new_train.sh trained. Usage: bash scripts/cdc/base2new_test.sh DATASET SEED
# DATASET is a file of configs/datasets (openmoji, imagenet …); for DATA, CFG, SHOTS and OUTPUT see scripts/base2new.sh.
source "$(dirname "$0")/../setup.sh"
source scripts/base2new.sh
set_up
base2new_test CDC "${1:?DATASET is missing}" "${2:?SEED is missing}"

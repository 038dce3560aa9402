#!/usr/bin/env bash
# CDC, base-to-new: trains on the base classes and tests on them. Usage: bash scripts/cdc/base2new_train.sh DATASET SEED
# DATASET is a file of configs/datasets (openmoji, imagenet …); for DATA, CFG, SHOTS and OUTPUT see scripts/base2new.sh.
source "$(dirname "$0")/../setup.sh"
source scripts/base2new.sh
set_up
base2new_train CDC "${1:?DATASET is missing}" "${2:?SEED is missing}"

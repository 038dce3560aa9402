#!/usr/bin/env bash
# KgCoOp, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/kgcoop/xd_train.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd KgCoOp train "$@"

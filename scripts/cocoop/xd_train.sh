#!/usr/bin/env bash
# CoCoOp, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/cocoop/xd_train.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd CoCoOp train "$@"

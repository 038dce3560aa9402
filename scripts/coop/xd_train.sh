#!/usr/bin/env bash
# CoOp, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/coop/xd_train.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd CoOp train "$@"

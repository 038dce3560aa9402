#!/usr/bin/env bash
# VPT, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/vpt/xd_train.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd VPT train "$@"

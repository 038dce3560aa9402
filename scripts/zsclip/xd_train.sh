#!/usr/bin/env bash
# ZeroshotCLIP, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/zsclip/xd_train.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd ZeroshotCLIP train "$@"

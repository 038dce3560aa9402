#!/usr/bin/env bash
# ZeroshotCLIP2, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/zsclip2/xd_train.sh SOURCE SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol xd ZeroshotCLIP2 train "$@"

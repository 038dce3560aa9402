#!/usr/bin/env bash
# CDC, cross-data-set and domain generalisation: trains on all classes of the source. Usage: bash scripts/cdc/xd_train.sh SOURCE SEED [KEY VALUE …]
exec bash "$(dirname "$0")/../xd_train.sh" CDC "$@"

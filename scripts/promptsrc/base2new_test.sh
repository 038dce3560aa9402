#!/usr/bin/env bash
# PromptSRC, base-to-new: tests on the new classes what base2new_train.sh trained. Usage: bash scripts/promptsrc/base2new_test.sh DATASET SEED [KEY VALUE …]
source "$(dirname "$0")/../protocol.sh"
protocol base2new PromptSRC test "$@"

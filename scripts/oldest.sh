#!/usr/bin/env bash
# The tests in an environment of its own, .venv-oldest, with the oldest packages that pyproject.toml admits for use;
# what only tests need is the newest: bash scripts/oldest.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
"${PYTHON:-python3}" -m venv .venv-oldest
# shellcheck disable=SC1091
source .venv-oldest/bin/activate
python - > .venv-oldest/constraints.txt << 'END'
import sys

sys.path.insert(0, "scripts")
from missing import requirements

for requirement in requirements(["app", "demo", "export", "heic", "open_clip", "slurm", "transformers"]):
    name, _, bounds = requirement.partition(">=")
    first, dot, last = bounds.partition(",")[0].rpartition(".")
    print(f"{name}<{first}{dot}{int(last) + 1}")
END
python -m pip install --quiet --disable-pip-version-check --constraint .venv-oldest/constraints.txt \
    --editable ".[demo,export,test]" --editable ./dassl-lite
python -m pytest "$@"

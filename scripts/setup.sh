# Sourced by the other scripts: goes to the repository, and makes an environment with everything installed, once.
# An environment that is already active (venv or conda) is used instead of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

set_up() {
    if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
        if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
            echo "Making the environment .venv" >&2
            rm -rf .venv
            "${PYTHON:-python3}" -m venv .venv
        fi
        # shellcheck disable=SC1091
        source .venv/bin/activate
    fi
    local wanted stamp
    wanted="$(cat setup.py dassl-lite/setup.py | cksum)"
    stamp="$(python -c 'import sys; print(sys.prefix)')/cdc-installed"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing (torch is large: this takes a few minutes the first time)" >&2
        python -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[demo,test,export,docs]"
        # pip compiles on one core; what can't be compiled is some package's test data
        python -m compileall -q -j 0 "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > /dev/null 2>&1 || true
        # the real Dassl, where it is installed, is left alone
        python -c 'import dassl' 2>/dev/null || python -m pip install --quiet --disable-pip-version-check --editable ./dassl-lite
        echo "$wanted" > "$stamp"
    fi
}

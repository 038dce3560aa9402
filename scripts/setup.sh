# Sourced by the other scripts, which call set_up with the extras of pyproject.toml that they need.
# An environment that is active (venv or conda) is the user's: it is looked at, and nothing is installed into it. Without one, .venv is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

set_up() { # EXTRA …
    local active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" wanted stamp extras
    if [ -n "$active" ] && ! [ "$active" -ef .venv ]; then
        python scripts/missing.py "$@" >&2 || exit 2
        return
    fi
    if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
        make_environment
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
    # the stamp: a checksum, then the extras that are installed
    wanted="$(cat pyproject.toml dassl-lite/pyproject.toml | cksum)"
    stamp=.venv/cdc-installed
    extras="$({ printf '%s\n' "$@"; grep -qxF "$wanted" "$stamp" 2> /dev/null && tail -n +2 "$stamp" || true; } | sort -u)"
    if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted"$'\n'"$extras" ]; then
        echo "Installing (torch is large: this takes a few minutes the first time)" >&2
        # what setuptools thinks of folders of settings is no news for who installs
        local -x PYTHONWARNINGS=ignore PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
        python -m pip install --quiet --no-compile --editable ".[${extras//$'\n'/,}]"
        # pip compiles on one core; what can't be compiled is some package's test data
        python -m compileall -q -j 0 "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > /dev/null 2>&1 || true
        # the real Dassl, where it is installed, is left alone
        python -c 'import dassl' 2> /dev/null || python -m pip install --quiet --editable ./dassl-lite
        printf '%s\n' "$wanted" "$extras" > "$stamp"
    fi
}

make_environment() {
    local python="${PYTHON:-python3}"
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
        echo "error: $python is no Python 3.10 or newer: install one, and name it: PYTHON=/path/to/python3 bash $0" >&2
        exit 2
    fi
    echo "Making the environment .venv" >&2
    rm -rf .venv
    # Debian keeps what puts pip into an environment in a package of its own, python3-venv: the system's pip does it, too
    if ! "$python" -m venv .venv > /dev/null 2>&1; then
        "$python" -m venv --clear --without-pip .venv
        PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --target "$(.venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")" pip
    fi
}

# Sourced by the scripts that install what the tests use beyond Python's packages.
set -euo pipefail

# install_debian NAMES "COMMAND …" PACKAGE …: installs the packages, called NAMES in messages, unless all COMMANDs exist.
install_debian() {
    local names="$1" commands="$2" as_root=()
    shift 2
    if [ -z "$(first_missing "$commands")" ]; then
        return
    fi
    if ! command -v apt-get > /dev/null; then
        echo "error: no apt-get here: install $names in another way" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update --quiet
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet "$@"
    if [ -n "$(first_missing "$commands")" ]; then
        echo "error: installed, but there is no $(first_missing "$commands") in PATH" >&2
        exit 1
    fi
}

first_missing() {
    local command
    for command in $1; do
        if ! command -v "$command" > /dev/null; then
            echo "$command"
            return
        fi
    done
}

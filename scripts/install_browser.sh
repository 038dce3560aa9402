#!/usr/bin/env bash
# Installs Debian's Chromium and its driver, with which the tests look at the report; does nothing where both are there.
set -euo pipefail
if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then
    exit 0
fi
if ! command -v apt-get > /dev/null; then
    echo "error: no apt-get here: install Chromium and chromedriver in another way" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet chromium chromium-driver
if ! command -v chromium > /dev/null || ! command -v chromedriver > /dev/null; then
    echo "error: installed, but there is no chromium or chromedriver in PATH" >&2
    exit 1
fi

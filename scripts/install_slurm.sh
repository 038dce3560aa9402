#!/usr/bin/env bash
# Installs Debian's Slurm and munge, on which the tests run a small sweep; does nothing where both are there.
set -euo pipefail
if command -v slurmctld > /dev/null && command -v slurmd > /dev/null && command -v munged > /dev/null; then
    exit 0
fi
if ! command -v apt-get > /dev/null; then
    echo "error: no apt-get here: install Slurm and munge in another way" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet slurm-wlm munge
if ! command -v slurmctld > /dev/null || ! command -v slurmd > /dev/null || ! command -v munged > /dev/null; then
    echo "error: installed, but there is no slurmctld, slurmd or munged in PATH" >&2
    exit 1
fi

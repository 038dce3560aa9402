#!/usr/bin/env bash
# Installs Debian's Slurm and munge, on which the tests run a small grid; does nothing where both are there.
here="${BASH_SOURCE[0]%"${BASH_SOURCE[0]##*/}"}"
source "${here:-./}debian.sh"
install_debian "Slurm and munge" "slurmctld slurmd munged" slurm-wlm munge

"""Grids of runs on this machine's cores or GPUs, or on Slurm: what ``sweep.py`` is made of."""

from trainers.common import environment as environment

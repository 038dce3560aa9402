"""What OpenMP, whose threads compute torch's operations on a CPU, is told: imported before torch, which loads it.

Between two operations its threads keep their cores busy for milliseconds, waiting for the next one. A loader's worker on the same cores then
takes time from a training step; with a few microseconds of waiting it finds enough time in between, see docs/performance.md.
"""
import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # turns of a loop: some ten microseconds

"""A run and its parts: the loop, building, checks, schedule, checkpoints, resuming, tests."""

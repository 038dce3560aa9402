"""Parts of a run: checks of settings, schedule, precision, checkpoints, resuming."""

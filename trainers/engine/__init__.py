"""How a run goes: settings' checks, schedule, precision, checkpoints, resuming."""

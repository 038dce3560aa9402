"""RAdam under Dassl's import path: torch's own class."""

from torch.optim import RAdam

__all__ = ["RAdam"]

"""The installed commands: each prepares its process before it imports what it does."""

from trainers.common.environment import start_command


def train() -> int:
    """``cdc-train``."""
    start_command()
    from .train import main

    return main()


def serve() -> int:
    """``cdc-serve``."""
    start_command()
    from .serve import main

    return main()


def predict() -> int:
    """``cdc-predict``."""
    start_command()
    from .predict import main

    return main()

"""Imports that take seconds, which a command makes when it knows that it needs them."""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep all imports of a process's first such context to its end, so that the garbage collector
    passes over them. Torch, torchvision and scikit-learn make half a million objects, through which it
    would look seven times, and once more at the end: one and a half seconds of the processor."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once, since garbage that is there would stay, too
            gc.freeze()
            atexit.register(gc.freeze)
        gc.enable()

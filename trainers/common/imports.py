"""Imports that take seconds, which a command makes when it knows that it needs them, and a package's second name."""

import atexit
import contextlib
import functools
import gc
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep all imports of a process's first such context to its end, so that the garbage collector
    passes over them. Torch, torchvision and scikit-learn make half a million objects, through which it
    would look seven times, and once more at the end: one and a half seconds of the processor."""
    gc.disable()
    try:
        yield
    finally:
        freeze()
        gc.enable()


@functools.cache  # once, since garbage that is there would stay, too
def freeze() -> None:
    """Let the garbage collector pass over all objects that there are, now and at the end of the process."""
    gc.freeze()
    atexit.register(pass_over_at_exit)


def pass_over_at_exit() -> None:
    """Let the garbage collector pass over all objects at the process's end, but for triton's (a part of
    torch's builds for CUDA), which prints pages of what it calls leaked if they are not collected."""
    if "triton" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()


class SecondName(MetaPathFinder, Loader):
    """Finds a package and its modules under another name too: as the same objects, so that nothing is
    registered twice.

    Args:
        name: of the package; second: the other name.
    """

    def __init__(self, name: str, second: str) -> None:
        self.name = name
        self.second = second

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Return how a module under the second name is made."""
        is_ours = fullname.startswith(f"{self.second}.")
        return ModuleSpec(fullname, self) if is_ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module under its first name."""
        module = import_module(self.name + spec.name.removeprefix(self.second))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back what the import system has changed: it was executed before."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def name_again(name: str, second: str) -> None:
    """Make a package importable under a second name."""
    sys.meta_path.insert(0, SecondName(name, second))
    sys.modules[second] = import_module(name)

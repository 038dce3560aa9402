"""States of the random generators, kept and taken back."""

import random
from typing import Any, TypedDict

import numpy
import torch
from torch import Tensor


class RandomState(TypedDict):
    """States of the generators; numpy's as its ``get_state`` gives it, its keys as a list."""

    python: tuple[object, ...]
    numpy: tuple[str, list[int], int, int, float]
    torch: Tensor
    cuda: Tensor | None


def rng_state() -> RandomState:
    """States of Python's, numpy's and torch's generators of this process, and of the GPU's if it computes
    there, in types that load without executing anything."""
    state: Any = numpy.random.get_state()  # a tuple; numpy's hints allow for legacy=False too
    name, keys, place, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), place, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        # of a GPU that is not used its state would take memory, and one in exclusive mode refuses
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_rng_state(state: RandomState) -> None:
    """Takes back what ``rng_state`` gave."""
    random.setstate(state["python"])
    name, keys, place, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), place, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])


def seed_all(seed: int) -> None:
    """Seeds the same generators, as Dassl's ``set_random_seed`` does."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)

"""States of the random generators, kept and taken back."""

import random
from typing import Any

import numpy
import torch

State = dict[str, Any]


def cpu_rng_state() -> State:
    """States of Python's, numpy's and torch's generators of this process, in types that load without executing anything."""
    state: Any = (
        numpy.random.get_state()
    )  # a tuple; numpy's hints allow for the dict of legacy=False too
    kind, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }


def rng_state() -> State:
    """``cpu_rng_state``, and that of the GPU's generator, if there is one."""
    return {
        **cpu_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_rng_state(state: State) -> None:
    """Takes back what ``rng_state`` or ``cpu_rng_state`` gave."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state(
        (kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss)
    )
    torch.set_rng_state(state["torch"])
    if state.get("cuda") is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

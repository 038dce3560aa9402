"""One thread for a small fit: with more, OpenMP's and OpenBLAS's threads wait for each other far longer
than they compute, and beside other processes for whole time slices (docs/performance.md)."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch

IS_LIMITED = ContextVar("IS_LIMITED", default=False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """To the end of the block, or of the function that it decorates, every library computes with one
    thread: numpy's and scipy's BLAS, scikit-learn's OpenMP, torch. Then all is as it was."""
    if IS_LIMITED.get():  # looking for the libraries takes milliseconds
        yield
        return
    # here, since importing a method must not take its time
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    token = IS_LIMITED.set(True)
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)  # some builds of torch have threads of their own
            yield
    finally:
        torch.set_num_threads(before)
        IS_LIMITED.reset(token)

"""Memory for batches of images on a CPU: lent again and again, and gone over in parts that stay in its cache."""
import weakref
from collections.abc import Iterator

import numpy
import torch
from torch import Tensor

CACHE_BYTES = 5 * 2 ** 19  # of images that a processor's cache holds beside an operation's intermediate results


def parts_in_cache(images: Tensor) -> Iterator[slice]:
    """Images (B, 3, H, W) in parts on each of which several operations are done before the next part's turn; one part where they aren't on a CPU."""
    at_once = max(1, CACHE_BYTES // images[0].nbytes) if images.device.type == "cpu" else len(images)
    for first in range(0, len(images), at_once):
        yield slice(first, first + at_once)


class ReusedMemory:
    """Memory for float32 tensors, which on the CPU is lent again once the last tensor in it is gone.

    New memory of a batch's size comes from the operating system, which clears every page of it: that takes longer than most steps.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[numpy.ndarray]] = {}  # number of values → blocks of that size that nobody has

    def __reduce__(self) -> tuple[type["ReusedMemory"], tuple[()]]:
        return ReusedMemory, ()  # another process begins with none

    def empty(self, shape: torch.Size, device: torch.device) -> Tensor:
        """A float32 tensor of any values."""
        if device.type != "cpu":
            return torch.empty(shape, device=device)
        blocks = self.free.setdefault(shape.numel(), [])
        block = blocks.pop() if blocks else numpy.empty(shape.numel(), dtype=numpy.float32)
        lent = block.view()  # which the tensor and all its views hold on to
        weakref.finalize(lent, blocks.append, block).atexit = False
        return torch.from_numpy(lent).view(shape)

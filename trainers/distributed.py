"""One run in several processes, one a GPU, on one machine or more, as ``torchrun`` starts them; without it nothing here does anything.

Every process goes through the same batches and epochs. What is expensive is divided: of a batch's images, and of the classes whose texts
are encoded, each loads and encodes its share, and ``gathered`` gives it the features of the others. From there on all compute the same
loss of the whole batch, as one process would, so that no loss needs to know how many there are. ``averaged`` makes their gradients one.

It is not ``DistributedDataParallel``: that one hooks into ``backward`` of a module whose processes have losses of their own, which
``torch.autograd.grad`` (ProGrad) passes by, and whose mean is the batch's loss only where shares are equal and every term is a mean over images.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from .common.errors import UserError
from .common.interruption import REQUEUE, Interrupted

Found = TypeVar("Found")

TIMEOUT = datetime.timedelta(
    minutes=10
)  # of waiting for another process, after which it is taken for lost


def count() -> int:
    """Number of processes of this run."""
    return (
        torch.distributed.get_world_size()
        if torch.distributed.is_available() and torch.distributed.is_initialized()
        else 1
    )


def rank() -> int:
    """This process's number, from 0."""
    return torch.distributed.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes and logs."""
    return rank() == 0


# ---- start and end ----


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Makes the processes that ``torchrun`` started one run, as its environment variables say.

    If one process fails, all stop; only the first error is raised.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not torch.distributed.is_available():
        yield
        return
    store, own, processes = next(torch.distributed.rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend, store=store, rank=own, world_size=processes, timeout=TIMEOUT
    )
    try:
        yield
    except BaseException as error:
        if another_failed(store):
            raise SystemExit(REQUEUE if isinstance(error, Interrupted) else 1) from error
        raise
    leave()


def another_failed(store: torch.distributed.Store) -> bool:
    """Whether a process has failed before this one; a store that does not answer has gone with the first of them."""
    try:
        return store.add("failed", 1) > 1
    except RuntimeError:
        return True


def leave() -> None:
    """From here on this process is alone."""
    if count() > 1:
        torch.distributed.destroy_process_group()


def choose_gpu() -> None:
    """Gives each process of a machine a GPU of its own.

    Raises:
        UserError: there are too few.
    """
    if count() > 1:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}: start as many processes as "
                "GPUs, or set USE_CUDA to False"
            )
        torch.cuda.set_device(local)


# ---- what is divided ----


def bounds(total: int, rank: int, processes: int) -> tuple[int, int]:
    """First and one after the last of the ``total`` things that are a process's share; shares differ by one at most."""
    return total * rank // processes, total * (rank + 1) // processes


def share(total: int, rank: int, processes: int) -> slice:
    """The slice of ``total`` things that a process loads and encodes: its share, or one thing that is not gathered where the share is empty."""
    first, end = bounds(total, rank, processes)
    return slice(first, max(end, first + 1))


def own_share(total: int) -> slice:
    """This process's ``share``."""
    return share(total, rank(), count())


def divided(encode: Callable[[slice], Tensor], total: int, dim: int = 1) -> Tensor:
    """``encode``'s results for ``total`` things along ``dim``: each process calls it with its ``own_share`` and gets all results."""
    return gathered(encode(own_share(total)), dim, total)


def in_place(own: Tensor, total: int) -> Tensor:
    """A batch (V, B, …), B = ``total``, with this process's share in its places and NaN in the others', whose features ``divided`` gives."""
    if own.shape[1] == total:
        return own
    whole = own.new_full((own.shape[0], total, *own.shape[2:]), torch.nan)
    whole[:, own_share(total)] = own
    return whole


def gathered(own: Tensor, dim: int, total: int) -> Tensor:
    """Every process's share of a tensor in one, the same in all; with gradient.

    Args:
        own: what this process made of its ``own_share``, along ``dim``.
        dim: dimension in which the shares follow each other.
        total: length of ``dim`` in the result.
    """
    if count() == 1:
        return own
    sizes = [
        end - first
        for first, end in (bounds(total, process, count()) for process in range(count()))
    ]
    return Gather.apply(own.narrow(dim, 0, sizes[rank()]), dim, sizes)


class Gather(torch.autograd.Function):
    """``gathered``, whose backward pass needs no other process.

    All have the same loss of what is gathered, so each already has the gradient of its own share. It hands it on times the number of
    processes N, for ``averaged`` divides by N: what only one process has done counts N / N, and what all have done, N times 1 / N, once too.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, dim: int, sizes: list[int]) -> Tensor:
        ctx.dim, ctx.first, ctx.size = dim, sum(sizes[: rank()]), sizes[rank()]
        own = own.movedim(dim, 0)
        padded = torch.cat(
            [own, own.new_zeros(max(sizes) - ctx.size, *own.shape[1:])]
        )  # gloo takes tensors of one shape only
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes)]).movedim(0, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return count() * gradient.narrow(ctx.dim, ctx.first, ctx.size), None, None


# ---- what is made one ----


def averaged(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Each tensor's mean over the processes; all of them travel at once."""
    if count() == 1:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    flat /= count()
    return [
        mean.view_as(tensor)
        for mean, tensor in zip(flat.split([tensor.numel() for tensor in tensors]), tensors)
    ]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Puts the mean over the processes in the place of each parameter's gradient."""
    if count() > 1:
        found = [
            (parameter, parameter.grad) for parameter in parameters if parameter.grad is not None
        ]
        for (parameter, _), mean in zip(found, averaged([gradient for _, gradient in found])):
            parameter.grad = mean


def any_of(*flags: bool) -> list[bool]:
    """For each flag whether it is set in any of the processes."""
    if count() == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.uint8)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return found.bool().tolist()


def every(value: Found) -> list[Found]:
    """What ``value`` is in each process."""
    found: list[Any] = [value] * count()
    if count() > 1:
        torch.distributed.all_gather_object(found, value)
    return found


def first_known(value: Found | None) -> Found | None:
    """The value of the first process that has one, in all of them."""
    return next((found for found in every(value) if found is not None), None)


def from_first(compute: Callable[[], Found]) -> Found:
    """What ``compute()`` gives in the first process, in all of them; the others don't call it."""
    if count() == 1:
        return compute()
    found: list[Any] = [compute() if is_first() else None]
    torch.distributed.broadcast_object_list(found, src=0, device=torch.device("cpu"))
    return found[0]


def wait() -> None:
    """Waits until all processes have come this far."""
    if count() > 1:
        torch.distributed.all_reduce(torch.zeros(1))


def check_same(what: str, value: object) -> None:
    """Refuses processes that are not parts of the same run.

    Args:
        what: ``value`` in words.
        value: what must be equal in all of them; anything that can be pickled.

    Raises:
        UserError: it is not.
    """
    found = every(value)
    other = next((number for number, theirs in enumerate(found) if theirs != found[0]), None)
    if other is not None:
        raise UserError(
            f"processes 0 and {other} differ in {what} ({found[0]} and {found[other]}): every machine needs the same code, data "
            "and --output-dir, on a common drive"
        )

"""The loss of a training batch, as it is or compiled."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ..common.errors import UserError
from ..data.random_state import restore_rng_state, rng_state
from ..method import Figures, Method

Loss = Callable[..., tuple[Tensor, Figures]]  # of a method's batch, as ``batch_loss``


def batch_loss(
    method: Method, images: Tensor, labels: Tensor, unprompted: Tensor | None = None
) -> tuple[Tensor, Figures]:
    """Return the loss of a batch, and figures for the log, its accuracy ``acc`` in percent among them.

    Args:
        images: (V, B, 3, H, W); labels: (B,); unprompted: the frozen CLIP's features (V, B, E) of the
            images, where they are known.
    """
    scores = method(images)
    if unprompted is not None:
        scores.unprompted = unprompted
    loss, figures = method.loss(scores, labels)
    if "acc" not in figures:
        with torch.no_grad():
            answer = method.predict(scores.logits).probability.argmax(dim=1)
        figures["acc"] = 100 * (answer == labels).float().mean()
    return loss, figures


class CompiledLoss:
    """``batch_loss`` compiled by ``torch.compile``: it computes the same up to rounding, and draws the same
    random numbers.

    What torch has compiled in this process before is forgotten: a function has few compiled versions at
    a time, and each method needs its own.

    Raises:
        UserError: the method takes gradients in its loss.
    """

    def __init__(self, method: Method) -> None:
        if not method.compiles:
            raise UserError(
                f"TRAIN.COMPILE is True, and {method.name()}'s loss takes gradients itself, which can't be compiled: "
                "leave it False"
            )
        torch.compiler.reset()
        # random numbers as torch draws them, in its order
        self.compiled = torch.compile(batch_loss, options={"fallback_random": True})
        self.is_first = True

    def __call__(self, method: Method, *batch: Tensor) -> tuple[Tensor, Figures]:
        """As ``batch_loss``.

        Raises:
            UserError: torch can't compile it, as without a C++ compiler.
        """
        if self.is_first:
            self.is_first = False
            fill_caches(method, *batch)
        try:
            loss, figures = self.compiled(method, *batch)
        except TorchDynamoException as error:
            reason = " ".join(str(error).splitlines()[:2]).strip()
            raise UserError(
                f"TRAIN.COMPILE is True, and torch can't compile {method.name()}'s loss ({reason}): install a C++ "
                "compiler such as g++ if there is none, or leave it False"
            ) from error
        return loss, figures


@torch.no_grad()
def fill_caches(method: Method, *batch: Tensor) -> None:
    """Compute a batch's loss, so that what a method computes once, such as hand-crafted texts, is no part of what
    is compiled. No later draw changes."""
    state = rng_state()
    batch_loss(method, *batch)
    restore_rng_state(state)

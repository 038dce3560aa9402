"""``PREC`` in one place: the dtype of the frozen weights, the autocast context, the gradient step."""

import contextlib
import logging

import torch
from torch import Tensor, nn

from ..common.errors import UserError, nearest
from ..distributed import average_gradients
from ..prompting import clip
from ..prompting.transformer import Attention

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "amp", "fp16")
SLOW_IN_FP16 = ("cpu",)  # kinds of devices


def check_precision(name: str) -> None:
    """Raises UserError for a value that ``PREC`` does not take."""
    if name not in PRECISIONS:
        raise UserError(
            f"PREC is {name!r}, it takes one of {', '.join(PRECISIONS)}{nearest(name, PRECISIONS)}"
        )


class Precision:
    """How a run computes.

    - ``fp32``: everything in fp32.
    - ``amp``: fp32 weights, encoders under autocast: bfloat16 where the device has it, else float16 with a loss scaler.
    - ``fp16``: the weights of the frozen maps in float16 as in CoOp, see ``to_half``; prompts and losses in fp32. On a CPU, which computes it up
      to 19 times more slowly, it becomes fp32.

    Args:
        name: one of ``PRECISIONS``.
        device: ``torch.device`` the run is on.

    Attributes:
        name: what the run computes in.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        check_precision(name)
        if name == "fp16" and device.type in SLOW_IN_FP16:
            log.warning(
                "PREC fp16 is up to 19 times slower than fp32 on a CPU: this run computes in fp32. PREC fp32 says the same without this line"
            )
            name = "fp32"
        self.name = name
        self.device_type = device.type
        self.autocast_dtype = None
        if name == "amp":
            has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(
                including_emulation=False
            )
            self.autocast_dtype = torch.bfloat16 if has_bfloat16 else torch.float16
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=self.autocast_dtype == torch.float16
        )

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context for the encoders' forward pass."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.autocast_dtype)

    def convert(self, model: nn.Module) -> None:
        """Puts a frozen model's weights into this precision."""
        if self.name == "fp16":
            to_half(model)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One gradient step on ``loss`` (a scalar)."""
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        average_gradients(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
        self.scaler.step(optimizer)
        self.scaler.update()


def to_half(model: nn.Module) -> None:
    """Puts into float16 what CLIP's own ``convert_weights`` does: linear maps, convolutions and projections.

    Norms, embeddings, positions and the logit scale stay fp32.
    """
    clip.model.convert_weights(model)
    for module in model.modules():
        if isinstance(module, Attention):  # ours, where clip has torch's
            for parameter in (module.in_proj_weight, module.in_proj_bias):
                parameter.data = parameter.data.half()

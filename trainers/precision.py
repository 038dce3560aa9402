"""``PREC`` in one place: the dtype of the frozen weights, the autocast context, the gradient step."""
import contextlib

import torch
from torch import Tensor

from .distributed import average_gradients
from .errors import UserError, nearest

PRECISIONS = ("fp32", "amp", "fp16")


def check_precision(name: str) -> None:
    """Raises UserError for a value that ``PREC`` does not take."""
    if name not in PRECISIONS:
        raise UserError(f"PREC is {name!r}, it takes one of {', '.join(PRECISIONS)}{nearest(name, PRECISIONS)}")


class Precision:
    """How a run computes.

    - ``fp32``: everything in fp32.
    - ``amp``: fp32 weights, encoders under autocast: bfloat16 where the device has it, else float16 with a loss scaler.
    - ``fp16``: frozen weights in float16 as in CoOp, prompts and losses in fp32.

    Args:
        name: one of ``PRECISIONS``.
        device: ``torch.device`` the run is on.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        check_precision(name)
        self.device_type = device.type
        self.weights_dtype = torch.float16 if name == "fp16" else torch.float32
        self.autocast_dtype = None
        if name == "amp":
            has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
            self.autocast_dtype = torch.bfloat16 if has_bfloat16 else torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast_dtype == torch.float16)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context for the encoders' forward pass."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.autocast_dtype)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One gradient step on ``loss`` (a scalar)."""
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        average_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])
        self.scaler.step(optimizer)
        self.scaler.update()

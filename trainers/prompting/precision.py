"""``PREC`` in one place: the dtype of the frozen weights and the autocast's.

- ``fp32``: everything in fp32.
- ``amp``: fp32 weights, encoders under autocast: bfloat16 where the device has it, else float16
  with a loss scaler. Methods whose authors ran them so have float16 wherever it is, and on a CPU
  fp32: bfloat16 keeps 8 bits of a number, float16 11, and MMA's addition drowns in the rounding.
- ``fp16``: the weights of the frozen maps in float16 as in CoOp (``in_half``); prompts and
  losses in fp32. On a CPU, which computes it up to 19 times more slowly, it becomes fp32. With a
  tower that is taken as it is, whose norms take fp32 weights, it becomes amp.
"""

import copy
import logging
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from .clip_package import clip_module
from .transformer import Attention

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)

SLOW_IN_FP16 = ("cpu",)  # kinds of devices


@dataclass(frozen=True)
class OfficialPrecision:
    """The differences of a method's official code from ``PREC``.

    Attributes:
        stays_fp32: whether PREC fp16 is fp32.
        amp_is_fp16: whether PREC amp is float16 with a loss scaler, never bfloat16; on a CPU it is
            fp32.
        fp32_teacher: whether the frozen CLIP that prompts are compared with is fp32 under PREC fp16
            too.
    """

    stays_fp32: bool = False
    amp_is_fp16: bool = False
    fp32_teacher: bool = False


def precision_on(
    name: str, device: torch.device, official: OfficialPrecision, computes_in_half: bool
) -> str:
    """Return the precision of a method on a device: fp32, amp or fp16.

    Args:
        name: the requested one.
        computes_in_half: as in ``Backbone``.
    """
    if name == "fp16" and device.type in SLOW_IN_FP16:
        log.warning(
            "PREC fp16 is up to 19 times slower than fp32 on a CPU: this run computes in fp32. "
            "PREC fp32 says the same without this line"
        )
        return "fp32"
    if name == "fp16" and official.stays_fp32:
        log.info("PREC fp16: this method computes in fp32, as its official code does")
        return "fp32"
    if name == "fp16" and not computes_in_half:
        log.info("PREC fp16: with a tower that is not CLIP's own this method computes under amp")
        return "amp"
    if name == "amp" and official.amp_is_fp16 and device.type in SLOW_IN_FP16:
        log.info("PREC amp: on a CPU, which has no fast float16, this method computes in fp32")
        return "fp32"
    return name


def autocast_dtype(precision: str, device: torch.device, amp_is_fp16: bool) -> torch.dtype | None:
    """Return the type of the encoders' maps under ``amp``; None under any other precision."""
    if precision != "amp":
        return None
    if amp_is_fp16:
        return torch.float16
    has_bfloat16 = device.type == "cpu" or (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.bfloat16 if has_bfloat16 else torch.float16


def in_half(model: Model) -> Model:
    """A copy with those weights in float16 that CLIP's own ``convert_weights`` puts there: linear
    maps, convolutions and projections.

    Norms, embeddings, positions and the logit scale stay fp32, and are the given model's own.
    """
    half = copy.deepcopy(model)
    clip_module("model").convert_weights(half)
    for module in half.modules():
        if isinstance(module, Attention):  # ours, where clip has torch's
            for parameter in (module.in_proj_weight, module.in_proj_bias):
                parameter.data = parameter.data.half()
    for name, parameter in model.named_parameters():
        copied = half.get_parameter(name)
        if copied.dtype == parameter.dtype:
            copied.data = parameter.data
    return half

"""The device that a run computes on, and what differs between devices.

Apple's GPUs (``mps``) are taken by torch's rules, and nobody has tried one yet: they have no float64, so
what is computed in it stays on the CPU.
"""

import torch
from torch import Tensor
from yacs.config import CfgNode

from .common.device_names import check_device_name
from .common.errors import UserError

AUTO = "auto"  # CUDA's GPU, if there is one and USE_CUDA allows it, else the CPU


def device_of(cfg: CfgNode) -> torch.device:
    """The device that ``cfg.DEVICE`` names. A GPU with a number becomes the one that torch computes on.

    Raises:
        UserError: the name is not a device's, or this machine has no such device.
    """
    name: str = cfg.DEVICE
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
    device = parse_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def parse_device(name: str) -> torch.device:
    """The device of a name such as cpu, cuda:1 or mps.

    Raises:
        UserError: the name is not a device's, or this machine has no such device.
    """
    check_device_name(name)
    kind, _, number = name.partition(":")
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": 1 if torch.backends.mps.is_available() else 0,
    }
    if int(number or 0) >= counts[kind]:
        raise UserError(
            f"the device is {name}, and torch sees {counts['cuda']} of CUDA's and {counts['mps']} of Apple's "
            "GPUs here: give --device auto"
        )
    return torch.device(name)


def wants_cuda(cfg: CfgNode) -> bool:
    """Whether a run computes on one of CUDA's GPUs, if there is one."""
    wants: bool = cfg.USE_CUDA if cfg.DEVICE == AUTO else cfg.DEVICE.startswith("cuda")
    return wants


def in_float64(values: Tensor) -> Tensor:
    """Values in float64, where they are, or on the CPU where their device has no float64."""
    return values.cpu().double() if values.device.type == "mps" else values.double()


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed what was started there; a CPU has."""
    torch.zeros((), device=device).item()

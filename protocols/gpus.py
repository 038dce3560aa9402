"""The GPUs that this process sees."""

import os

import torch


def visible_gpus() -> list[str]:
    """Return the names in ``CUDA_VISIBLE_DEVICES`` of the GPUs that this process sees; empty without one.

    They are counted by the driver, without a context: that would take memory of each.
    """
    count = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]

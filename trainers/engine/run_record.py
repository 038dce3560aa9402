"""Facts that make a run's numbers traceable: the commit of this code, the versions of its packages, and
the GPU."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch
import torchvision

from ..host import version_of_dassl


def git_commit() -> str | None:
    """Commit of the checkout that this code belongs to, with ``-dirty`` where files differ from it;
    None outside a checkout.

    Installed inside another project's folder, this code is not part of that project's checkout.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", os.path.basename(__file__))
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def gpu_facts(device: torch.device) -> dict[str, str | int | bool | None]:
    """Return the facts of a GPU that change numbers: its name, driver, CUDA and cuDNN (None where unknown),
    whether its products may take the format of 10 bits (TF32) and its sums any order; empty for
    another device."""
    if device.type != "cuda":
        return {}
    driver = Path("/proc/driver/nvidia/version")  # Linux's
    lines = driver.read_text(encoding="utf-8").splitlines() if driver.is_file() else []
    return {
        "name": torch.cuda.get_device_name(device),
        "driver": lines[0].strip() if lines else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def versions() -> dict[str, str | None]:
    """The versions of Python and of the packages that a number depends on; None for one that is not
    installed."""
    known = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        **version_of_dassl(),
    }
    for name in ("cdc-prompt-learning", "dassl-lite", "clip-anytorch", "numpy"):
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            known[name] = None
    return known

"""What makes a run's numbers traceable: the commit of this code, and the versions of what it rests
on."""

import importlib.metadata
import os
import platform
import subprocess

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

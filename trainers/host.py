"""Calls to Dassl where it is installed: a toolbox that hosts these trainers, or ``dassl-lite``. Apart
from the adapter, ``trainer.py``, nothing else knows of it."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from yacs.config import CfgNode


def has_dassl() -> bool:
    """Whether there is a Dassl."""
    return find_spec("dassl") is not None


def registered_trainer(name: str) -> Any:
    """The trainer that any module has registered under a name; None without one, or without Dassl."""
    if not has_dassl():
        return None
    from dassl.engine import TRAINER_REGISTRY

    is_known = name in TRAINER_REGISTRY.registered_names()
    return TRAINER_REGISTRY.get(name) if is_known else None


def training_transforms(cfg: CfgNode) -> list[Any]:
    """The steps of Dassl's transform of training images."""
    from dassl.data.transforms import build_transform

    transform = build_transform(cfg, is_train=True)
    assert transform is not None  # INPUT.NO_TRANSFORM takes only False
    steps: list[Any] = transform.transforms
    return steps


def version_of_dassl() -> dict[str, str | None]:
    """Return Dassl's version, and which Dassl it is: ``lite`` or ``real``."""
    if not has_dassl():
        return {"dassl": None, "which dassl": None}
    dassl = import_module("dassl")
    return {
        "dassl": getattr(dassl, "__version__", None),
        "which dassl": "lite" if getattr(dassl, "is_lite", False) else "real",
    }

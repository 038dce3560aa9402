"""Trainers by name."""

from collections.abc import Callable

from yacs.config import CfgNode

from dassl.engine.trainer import SimpleTrainer
from dassl.utils import Registry
from dassl.utils.registry import build

TRAINER_REGISTRY: Registry[Callable[..., SimpleTrainer]] = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> SimpleTrainer:
    return build(TRAINER_REGISTRY, "trainer", cfg.TRAINER.NAME, cfg)
